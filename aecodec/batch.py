"""Which files a command line means: arguments -> one job per file, before any work is done.

    arguments -> split_output -> inputs, output
    inputs -> glob patterns and folders expanded -> a target for each -> jobs and failures

Nothing is opened but folders, except that a file's first bytes may tell an .aec file.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from aecodec import container

PIPE = "-"
SUFFIX = ".aec"
# What a folder is searched for; a file that is named is tried whatever its suffix.
PICTURES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".qoi", ".ico", ".pcx", ".sgi",
)  # fmt: skip


class UsageError(Exception):
    """Arguments that do not make sense together."""


@dataclass(frozen=True)
class Direction:
    """Compressing or decompressing: what is looked for and what is made."""

    verb: str
    sources: tuple[str, ...]  # suffixes
    what: str  # the sources in words
    target: str  # suffix

    def is_output(self, argument: str) -> bool:
        """Whether an argument that comes last names the output, going by its looks."""
        if argument == PIPE or is_folder(argument):
            return True
        if self.target == SUFFIX:
            return argument.lower().endswith(SUFFIX)
        if argument.lower().endswith(SUFFIX) or glob.has_magic(argument):
            return False
        return not _is_aec(argument)

    def is_file_name(self, output: str) -> bool:
        """Whether an output is a file, or is named like one of those that are made."""
        if is_folder(output):
            return False
        made = (SUFFIX,) if self.target == SUFFIX else PICTURES
        return os.path.isfile(output) or output.lower().endswith(made)

    def rename(self, name: str) -> str:
        """The name of the result: the suffix exchanged, or added where there is none to lose."""
        stem, suffix = os.path.splitext(name)
        return (stem if suffix.lower() in self.sources else name) + self.target


@dataclass(frozen=True)
class Job:
    """One file to make from another; `-` is standard input or output.

    `in_folder` tells that the target's folder may have to be made first.
    """

    source: str
    target: str
    in_folder: bool = False


@dataclass
class Plan:
    """Jobs in the order of the arguments, and what cannot become one: (path, reason)."""

    jobs: list[Job] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


def compressing() -> Direction:
    """Pictures to .aec files."""
    return Direction("compress", PICTURES, "pictures", SUFFIX)


def decompressing(suffix: str = ".png") -> Direction:
    """.aec files to pictures with the given suffix."""
    return Direction("decompress", (SUFFIX,), ".aec files", suffix)


def is_folder(path: str) -> bool:
    """Whether a path is a folder, or is written as one that is still to be made."""
    separators = tuple(filter(None, (os.sep, os.altsep)))
    return os.path.isdir(path) or path.endswith(separators)


def split_output(
    arguments: Sequence[str], output: str | None, direction: Direction
) -> tuple[list[str], str | None]:
    """(inputs, output): the last of several arguments is the output when it looks like one.

    An output given by option wins, and then every argument is an input.
    """
    if output is None and len(arguments) > 1 and direction.is_output(arguments[-1]):
        return list(arguments[:-1]), arguments[-1]
    return list(arguments), output


def plan(
    inputs: Sequence[str], output: str | None, direction: Direction, *, recursive: bool = False
) -> Plan:
    """The jobs for these inputs.

    Inputs are files, `-`, glob patterns (for shells that do not expand them) and, when
    `recursive`, folders, whose tree is mirrored below the output folder or filled in place.
    Raises UsageError when inputs and output do not fit together.
    """
    found, made = list(_expand(inputs, direction, recursive)), Plan()
    several = len(inputs) > 1 or len(found) > 1 or any(os.path.isdir(path) for path in inputs)
    if several and output == PIPE:
        raise UsageError("several files cannot be written to standard output: use -o FOLDER")
    if PIPE in inputs and (len(inputs) > 1 or (output is not None and is_folder(output))):
        raise UsageError("standard input is one picture: give it one output, and no other input")
    if several and output is not None and direction.is_file_name(output):
        raise UsageError(f"several files need a folder as their output, not the file {output}")
    into_folder = output is not None and (several or is_folder(output))
    taken: dict[str, str] = {}
    for source, relative, reason in found:
        if not reason and output is None and _is_stray(source, inputs, direction):
            reason = "does not exist; an output ends in .aec or /, or is given with -o"
        if reason:
            made.failures.append((source, reason))
            continue
        target = _target(source, relative, output, into_folder, direction)
        key = os.path.normcase(os.path.abspath(target))
        if target != PIPE and source != PIPE and _same(source, target):
            made.failures.append((source, "the output would overwrite the input"))
        elif target == PIPE or key not in taken:
            taken[key] = source
            made.jobs.append(Job(source, target, into_folder))
        elif not _same(source, taken[key]):  # one file that is named twice is done once
            made.failures.append((source, f"{target} is already the output of {taken[key]}"))
    return made


def matching(inputs: Iterable[str]) -> Iterator[str]:
    """Patterns expanded, unless a file has that very name; what matches nothing stays."""
    for path in inputs:
        pattern = path != PIPE and glob.has_magic(path) and not os.path.lexists(path)
        matches = sorted(glob.glob(path, recursive=True)) if pattern else []
        yield from matches or [path]


def _target(
    source: str, relative: str, output: str | None, into_folder: bool, direction: Direction
) -> str:
    if output is not None and not into_folder:
        return output
    if source == PIPE:
        return PIPE
    name = direction.rename(source if output is None else relative)
    return name if output is None else os.path.join(output, name)


def _is_stray(path: str, inputs: Sequence[str], direction: Direction) -> bool:
    """Whether an input that does not exist was probably meant as the output."""
    last = len(inputs) > 1 and path == inputs[-1] != PIPE
    return last and not path.lower().endswith(direction.sources) and not os.path.lexists(path)


def _expand(
    inputs: Iterable[str], direction: Direction, recursive: bool
) -> Iterator[tuple[str, str, str]]:
    """(path, path below the output folder, reason why it is no job or "")."""
    for path in matching(inputs):
        name = os.path.basename(path)
        if path == PIPE or os.path.isfile(path):
            yield path, name, ""
        elif os.path.isdir(path):
            if not recursive:
                yield path, name, f"is a folder; use -r to {direction.verb} what is in it"
                continue
            below = list(_walk(path, direction))
            if not below:
                yield path, name, f"no {direction.what} in this folder"
            for file in below:
                yield file, os.path.relpath(file, path), ""
        elif glob.has_magic(path) and not os.path.lexists(path):
            yield path, name, "no file matches this pattern"
        else:
            # Pipes and devices are read like files; what is not there is reported when opened.
            yield path, name, ""


def _walk(folder: str, direction: Direction) -> Iterator[str]:
    """Files of a tree that the direction is for, sorted, hidden ones left out."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.lower().endswith(direction.sources) and not name.startswith("."):
                yield os.path.join(parent, name)


def _same(source: str, target: str) -> bool:
    try:
        return os.path.samefile(source, target)
    except OSError:  # one of them does not exist
        return False


def _is_aec(path: str) -> bool:
    """Whether an existing file is an .aec file by its first bytes."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return container.is_aec(file.read(len(container.MAGIC)))
    except OSError:
        return False
