"""Write docs/aecodec.1, the man page, from the help texts of the command.

Run `python tools/man_page.py` after changing one; `man docs/aecodec.1` shows the result.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from aecodec.cli import STATUSES, cli

PAGE = Path(__file__).parents[1] / "docs" / "aecodec.1"
_VERBATIM = "\b"  # click's mark for a paragraph that is not to be filled


def page() -> str:
    """The whole page in roff."""
    lines = [
        '.TH AECODEC 1 "" "aecodec" "User Commands"',
        ".SH NAME",
        "aecodec \\- learned lossy image codec",
        ".SH SYNOPSIS",
        *_synopses(),
        ".SH DESCRIPTION",
        *_text(cli.help or ""),
    ]
    for name, command in sorted(cli.commands.items()):
        lines += [f".SH {name.upper()}", *_text(command.help or ""), *_options(command)]
        lines += _text(command.epilog or "")
    lines += [".SH OPTIONS", *_options(cli), ".SH EXIT STATUS", *_text(_body(STATUSES))]
    lines += [".SH ENVIRONMENT", *_environment()]
    return "\n".join(lines) + "\n"


def _body(text: str) -> str:
    """A block without its heading, which has become a section's name."""
    mark, _, *rest = text.splitlines()
    return "\n".join([mark, *rest])


def _synopses() -> Iterator[str]:
    for number, (name, command) in enumerate(sorted(cli.commands.items())):
        arguments = [p.metavar or "" for p in command.params if isinstance(p, click.Argument)]
        if number:
            yield ".br"
        yield f".B aecodec {name}"
        yield _escape(" ".join(["[OPTIONS]", *filter(None, arguments)]))


def _options(command: click.Command) -> Iterator[str]:
    for option in command.params:
        if not isinstance(option, click.Option) or option.hidden:
            continue
        names = ", ".join([*option.opts, *option.secondary_opts])
        value = "" if option.is_flag else f" {option.metavar or '|'.join(_choices(option))}"
        yield ".TP"
        yield f"\\fB{_escape(names)}\\fR{_escape(value)}"
        yield _escape(" ".join([*(option.help or "").split(), *_default(option)]))


def _default(option: click.Option) -> Iterator[str]:
    if option.show_default:
        value = option.default
        yield f"Default: {value:g}." if isinstance(value, float) else f"Default: {value}."


def _choices(option: click.Option) -> list[str]:
    return [str(choice) for choice in getattr(option.type, "choices", ["VALUE"])]


def _text(text: str) -> Iterator[str]:
    """Paragraphs, those after the mark line by line."""
    for paragraph in filter(None, inspect.cleandoc(text).split("\n\n")):
        yield ".PP"
        if paragraph.startswith(_VERBATIM):
            yield ".nf"
            yield from map(_escape, paragraph.splitlines()[1:])
            yield ".fi"
        else:
            yield from map(_escape, paragraph.splitlines())


def _environment() -> Iterator[str]:
    rows = {
        "AECODEC_COMMAND_OPTION": "Default of an option: AECODEC_COMPRESS_QUALITY=60.",
        "AECODEC_DEVICE": "Where the networks run: cpu, cuda or auto.",
        "AECODEC_THREADS": "Threads of the networks, by default one per core.",
        "AECODEC_WEIGHTS": "Another folder of models, looked into first.",
        "AECODEC_DEBUG": "Show the traceback of a fault of the program.",
        "NO_COLOR": "No colours on terminals.",
    }
    for name, meaning in rows.items():
        yield from (".TP", f".B {name}", meaning)


def _escape(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


if __name__ == "__main__":
    PAGE.write_text(page())
