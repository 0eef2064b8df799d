"""aecodec: a learned lossy image codec with a real file format (.aec).

    data = aecodec.encode(image, quality=75)    # PIL image or uint8 array -> bytes
    image = aecodec.decode(data)                # bytes -> PIL image
    aecodec.compress("in.png", "out.aec")
    aecodec.decompress("out.aec", "back.png")

Every error is an `aecodec.AecError`. Nothing heavy is loaded until the first call.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from aecodec.errors import AecError

if TYPE_CHECKING:
    from aecodec.api import Info, compress, decode, decompress, encode, info

__version__ = "0.1.0"
__all__ = ["AecError", "Info", "compress", "decode", "decompress", "encode", "info"]


def __getattr__(name: str) -> object:
    # Pillow and NumPy take a tenth of a second: a program that only asks for the version or
    # for `info` does not wait for them.
    if name in __all__:
        return getattr(importlib.import_module("aecodec.api"), name)
    raise AttributeError(f"module 'aecodec' has no attribute {name!r}")
