"""Outputs are complete or absent: killed half-way, disk full, no permission, files that vanish."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import synthetic

import aecodec
from aecodec import api, codec, files, picture
from aecodec.errors import AecError, FileError

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and permissions")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with in.png and in.aec."""
    source = synthetic.picture("RGB", 60, 50)
    picture.save(source, tmp_path / "in.png")
    (tmp_path / "in.aec").write_bytes(codec.encode_picture(source))
    return tmp_path


def convert(source: Path, target: Path) -> None:
    (api.compress if target.suffix == ".aec" else api.decompress)(source, target)


PAIRS = [("in.png", "out.aec"), ("in.aec", "out.png")]


def run_script(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, the package on its path."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


# Where the process dies: before anything is written, after half of it, after all of it.
DEATHS = {
    "fsync": "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)",
    "replace": "os.replace = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)",
    "write": """
def half(name, mode):
    file = real(name, mode)
    class Half:
        def __enter__(self): return self
        def __exit__(self, *rest): file.close()
        def write(self, data):
            file.write(data[: len(data) // 2]); file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    return Half()
real = open
files.open = half
""",
}


@posix
@pytest.mark.parametrize("death", DEATHS)
def test_killed(death: str, tmp_path: Path) -> None:
    """The old file stays as it was; what is left over has another name."""
    target = tmp_path / "out.aec"
    target.write_bytes(b"old")
    script = (
        f"import os, signal\nfrom aecodec import files\n{DEATHS[death]}\n"
        "files.write_atomically('out.aec', b'new' * 100000)"
    )
    assert run_script(script, tmp_path).returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    left = [path.name for path in tmp_path.iterdir() if path != target]
    assert all(name.startswith(".") and name.endswith(".tmp") for name in left)
    files.write_atomically(target, b"again")
    assert target.read_bytes() == b"again"


@posix
def test_killed_while_compressing(place: Path) -> None:
    script = (
        "import os, signal, aecodec\nfrom aecodec import coder\n"
        "coder.write_tile = lambda *rest, **options: os.kill(os.getpid(), signal.SIGKILL)\n"
        "aecodec.compress('in.png', 'out.aec')"
    )
    assert run_script(script, place).returncode == -signal.SIGKILL
    assert sorted(path.name for path in place.iterdir()) == ["in.aec", "in.png"]


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes; skips the test where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_disk_full(place: Path) -> None:
    with small_disk(place / "disk", 8192) as disk:
        (disk / "out.png").write_bytes(b"old")
        (disk / "filler").write_bytes(bytes(4096))
        for source in (place / "in.png", place / "in.aec"):
            target = disk / ("out.aec" if source.suffix == ".png" else "out.png")
            with pytest.raises(FileError, match="No space left on device"):
                convert(source, target)
        assert sorted(path.name for path in disk.iterdir()) == ["filler", "out.png"]
        assert (disk / "out.png").read_bytes() == b"old"


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_disk_full_by_injection(
    source: str, target: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    (place / target).write_bytes(b"old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        convert(place / source, place / target)
    assert (place / target).read_bytes() == b"old"
    assert sorted(path.name for path in place.iterdir()) == sorted(["in.aec", "in.png", target])


@posix
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_read_only_folder(source: str, target: str, place: Path) -> None:
    """As somebody who is not root, for root may write everywhere."""
    folder = place / "locked"
    folder.mkdir()
    script = (
        "import os, sys\nfrom aecodec import api, codec\n"
        "codec.open_model()\n"  # before rights are given up: the package may be in a private folder
        "data = codec.decode_file(open('in.aec', 'rb').read())\n"
        "os.chmod('locked', 0o555)\n"
        "if os.geteuid() == 0: os.setegid(65534); os.seteuid(65534)\n"
        f"try: api.{'compress' if target.endswith('.aec') else 'decompress'}"
        f"('{source}', 'locked/{target}')\n"
        "except ValueError as error: sys.exit(str(error))"
    )
    for path in (place, *place.parents):  # pytest's folders are private
        if os.access(path, os.W_OK) and path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    for name in ("in.png", "in.aec"):
        (place / name).chmod(0o644)
    done = run_script(script, place)
    folder.chmod(0o755)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr.splitlines()[-1]
    assert list(folder.iterdir()) == []


def test_output_equals_input(place: Path) -> None:
    """The input is read before, and replaced only by a whole output."""
    before = (place / "in.aec").read_bytes()
    with pytest.raises(AecError, match="suffix"):
        aecodec.decompress(place / "in.aec", place / "in.aec")
    assert (place / "in.aec").read_bytes() == before
    with pytest.raises(FileError, match="already exists"):
        aecodec.compress(place / "in.png", place / "in.png", overwrite=False)
    aecodec.compress(place / "in.png", place / "in.png")
    assert (place / "in.png").read_bytes() == before


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_input_that_vanishes(
    source: str, target: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in one go: what happens to the input afterwards does not matter."""
    read = files.read_bytes

    def read_and_remove(path: Path) -> bytes:
        data = read(path)
        os.unlink(path)
        return data

    monkeypatch.setattr(files, "read_bytes", read_and_remove)
    convert(place / source, place / target)
    assert (place / target).stat().st_size > 20
    monkeypatch.undo()
    with pytest.raises(FileError, match="No such file"):
        convert(place / source, place / target)
    assert (place / target).stat().st_size > 20


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_failed_work_leaves_the_old_output(
    source: str, target: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / target).write_bytes(b"old")
    whole = (place / source).read_bytes()
    (place / source).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AecError):
        convert(place / source, place / target)
    assert (place / target).read_bytes() == b"old"
    assert len(list(place.iterdir())) == 3
