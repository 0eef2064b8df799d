"""Whole files in and out; nothing is ever left half-written under its final name."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from aecodec.errors import FileError


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """All bytes of a file. Raises FileError, naming the file."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise FileError(f"{path}: {reason(error)}") from error


def write_atomically(path: str | os.PathLike[str], data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` under `path` in full or not at all. Raises FileError, naming the file.

    The bytes go to a temporary file in the same folder, are forced to disk, and only then take
    the name of the target. A new file gets the permissions that the umask leaves, a replaced one
    keeps its own; a symbolic link stays and what it points to is replaced. With `overwrite` off
    an existing target is an error.
    """
    try:
        # Replacing the link itself would leave the file behind it stale.
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and not overwrite:
            raise FileError(f"{path}: already exists")
        if mode is not None and stat.S_ISDIR(mode):
            raise FileError(f"{path}: is a folder")
        if mode is not None and not stat.S_ISREG(mode):
            target.write_bytes(data)  # a device or a pipe has no name to replace
            return
        _replace(target, data, mode)
    except FileError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise FileError(f"{path}: cannot be written: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What the operating system says went wrong, without its number and the path."""
    said = error.strerror if isinstance(error, OSError) else None
    return said or str(error) or type(error).__name__


def _replace(target: Path, data: bytes, mode: int | None) -> None:
    # Not tempfile: it makes files that only their owner may read, whatever the umask says.
    temporary = target.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, stat.S_IMODE(mode))
        os.replace(temporary, target)
    except BaseException:  # an interrupt must not leave the temporary file behind either
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where the system can open folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
