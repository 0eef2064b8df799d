"""Writing whole files: complete or not at all, whatever goes wrong on the way."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from aecodec import files
from aecodec.errors import FileError
from aecodec.files import read_bytes, write_atomically

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions and links")


def test_writes_and_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.aec"
    write_atomically(path, b"one")
    write_atomically(str(path), b"\r\n\x1a\x00")
    assert read_bytes(path) == b"\r\n\x1a\x00"
    assert os.listdir(tmp_path) == ["a.aec"]


def test_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_atomically("a", b"x")
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FileError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_failure_leaves_the_old_file_and_nothing_else(
    step: str,
    error: BaseException,
    seen: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "a.aec"
    path.write_bytes(b"old")

    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(seen) as caught:
        write_atomically(path, b"new")
    if seen is FileError:
        assert str(caught.value) == f"{path}: cannot be written: No space left on device"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.aec"]


def test_target_is_complete_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "a.aec", []
    replace = os.replace

    def watch(source: Path, target: Path) -> None:
        seen.append((Path(source).parent, Path(source).read_bytes(), Path(target).exists()))
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", watch)
    write_atomically(path, b"whole")
    assert seen == [(tmp_path, b"whole", False)]


def test_no_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.aec"
    write_atomically(path, b"one", overwrite=False)
    with pytest.raises(FileError, match=r"a\.aec: already exists"):
        write_atomically(path, b"two", overwrite=False)
    assert path.read_bytes() == b"one"


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a folder"):
        write_atomically(tmp_path, b"x")
    with pytest.raises(FileError, match="none"):
        write_atomically(tmp_path / "none" / "a.aec", b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "a.aec", b"x")


def test_read_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.png: No such file"):
        read_bytes(tmp_path / "none.png")


def test_names_that_no_file_can_have() -> None:
    for call in (read_bytes, lambda path: write_atomically(path, b"x")):
        with pytest.raises(FileError):
            call("a\0b")
        with pytest.raises(FileError):
            call("x" * 5000)


@posix
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_new_files_follow_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


@posix
def test_replaced_files_keep_their_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o640)
    write_atomically(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_bytes() == b"new"


@posix
def test_links_stay_links(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    real, link = tmp_path / "folder" / "real", tmp_path / "link"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


@posix
def test_devices_are_written_directly() -> None:
    write_atomically("/dev/null", b"x")
    assert not stat.S_ISREG(os.stat("/dev/null").st_mode)


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="Permission denied"):
        write_atomically(tmp_path / "a", b"x")
    tmp_path.chmod(0o700)
