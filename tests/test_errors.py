"""The exception tree: one root, one line, drawn as it is."""

from __future__ import annotations

import inspect

from aecodec import errors
from aecodec.errors import AecError, ChecksumError, FormatError

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]


def test_one_root() -> None:
    assert issubclass(AecError, ValueError)
    assert issubclass(ChecksumError, FormatError)
    assert all(issubclass(cls, AecError) for cls in CLASSES)


def test_tree_in_the_docstring_is_complete() -> None:
    assert errors.__doc__ is not None
    assert all(cls.__name__ in errors.__doc__ and cls.__doc__ for cls in CLASSES)


def test_messages_are_one_line() -> None:
    for cls in CLASSES:
        assert str(cls("odd\nname.png:  not\r\n a picture")) == "odd name.png: not a picture"
