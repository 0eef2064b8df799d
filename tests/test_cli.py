"""The command as people type it: options, output, exit statuses, pipes, interrupts.

Most of it runs with a stand-in for the codec (tests/fake_codec.py), in this process where that
is enough and as a process of its own where pipes, terminals and signals matter.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_codec
import numpy as np
import pytest
from PIL import Image

import aecodec
from aecodec import cli, console, container, files, jobs, seen, weights

FAKE = [sys.executable, str(Path(__file__).with_name("fake_codec.py"))]
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals, terminals and devices")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the pictures a.png and b.png, the stand-in, and a clean environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "aecodec.codec", fake_codec.module())
    monkeypatch.setattr(aecodec, "codec", sys.modules["aecodec.codec"], raising=False)
    monkeypatch.setattr(jobs, "gate", jobs.Gate())
    for name in [name for name in os.environ if name.startswith("AECODEC_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    paint("a.png", 1)
    paint("b.png", 2)
    fake_codec.calls.clear()
    return tmp_path


def paint(name: str, seed: int, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = np.cumsum(rng.integers(-3, 4, (size[1], size[0], 3)), axis=1) + 128
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode).save(name)


def listing() -> list[str]:
    return sorted(
        path.as_posix() for path in Path(".").rglob("*") if path.is_file() or path.is_symlink()
    )


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process: (status, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = cli.run(arguments)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return call


def spawn(*arguments: str, stdin: bytes | None = b"", **options: Any) -> tuple[int, bytes, bytes]:
    """Run the command as a process of its own."""
    done = subprocess.run(
        [*FAKE, *arguments], input=stdin, capture_output=True, timeout=100, check=False, **options
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def aec(name: str = "a.png", quality: float = 75) -> bytes:
    from aecodec import picture

    return fake_codec.encode_picture(picture.load(name), quality)


# One file


def test_there_and_back(run: Run) -> None:
    assert run("compress", "a.png", "x.aec", "-q", "90")[0] == 0
    assert run("decompress", "x.aec", "back.png")[0] == 0
    with Image.open("a.png") as before, Image.open("back.png") as after:
        assert after.size == before.size
        assert np.abs(np.asarray(after, int) - np.asarray(before, int)).max() < 4


def test_names_are_made_from_the_input(run: Run) -> None:
    assert run("compress", "a.png")[0] == 0
    os.rename("a.aec", "c.aec")
    assert run("decompress", "c.aec")[0] == 0
    assert run("decompress", "c.aec", "--format", "jpeg")[0] == 0
    assert listing() == ["a.png", "b.png", "c.aec", "c.jpg", "c.png"]


def test_the_line_about_a_compressed_file(run: Run) -> None:
    status, out, err = run("compress", "a.png", "-q", "60")
    size, before = os.path.getsize("a.aec"), os.path.getsize("a.png")
    assert (status, err) == (0, "")
    start = f"a.png -> a.aec: {size} bytes, {before / size:.1f} times smaller, "
    assert out.startswith(start + f"{size * 8 / 1200:.3f} bpp, quality 60, ")
    assert out.endswith(" s\n")
    assert " dB, " in out
    assert out.count("\n") == 1


def test_a_file_that_grows_is_called_larger(run: Run) -> None:
    before = b"P5 1 1 255\n\0"
    Path("dot.pgm").write_bytes(before)
    out = run("compress", "dot.pgm")[1]
    assert f"{os.path.getsize('dot.aec') / len(before):.1f} times larger, " in out


def test_verifying_is_a_choice(run: Run) -> None:
    assert " dB" not in run("compress", "a.png", "--no-verify")[1]
    assert fake_codec.calls == ["encode"]
    assert run("compress", "a.png", "-f", "--quiet") == (0, "", "")
    assert fake_codec.calls == ["encode"] * 2
    assert run("compress", "a.png", "-f", "--quiet", "--verify")[0] == 0
    assert fake_codec.calls[2:] == ["encode", "decode"]


def test_a_result_that_does_not_decode_is_not_written(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise aecodec.errors.SymbolError("out of step")

    monkeypatch.setattr(sys.modules["aecodec.codec"], "decode_file", broken)
    assert run("compress", "a.png") == (1, "", "aecodec: a.png: out of step\n")
    assert "a.aec" not in listing()


def test_existing_outputs_are_refused(run: Run) -> None:
    Path("a.aec").write_bytes(b"precious")
    status, out, err = run("compress", "a.png")
    assert (status, out) == (1, "")
    assert err == "aecodec: a.aec: already exists (-f replaces it)\n"
    assert not fake_codec.calls
    assert Path("a.aec").read_bytes() == b"precious"
    said = "a.aec exists already: skipped\n"
    assert run("compress", "a.png", "--skip-existing") == (0, "", said)
    assert run("compress", "a.png", "--skip-existing", "--quiet") == (0, "", "")
    assert Path("a.aec").read_bytes() == b"precious"
    assert run("compress", "a.png", "-f")[0] == 0
    assert container.is_aec(Path("a.aec").read_bytes())
    Path("a.png").write_bytes(b"precious")
    assert run("decompress", "a.aec")[0] == 1
    assert Path("a.png").read_bytes() == b"precious"


def test_the_input_as_output_is_refused_even_by_force(run: Run) -> None:
    Path("a.aec").write_bytes(aec())
    before = Path("a.aec").read_bytes()
    assert run("decompress", "a.aec", "-o", "a.aec", "-f")[0] == 1
    os.symlink("a.png", "link.aec")
    assert run("compress", "a.png", "link.aec", "-f")[0] == 1
    assert Path("a.aec").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("gone.png", None, "No such file or directory"),
        ("text.png", b"hello", "not a picture"),
        ("empty.png", b"", "not a picture"),
        ("cut.png", "cut", "cannot be decoded"),
        ("x.aec", "aec", "is an .aec file already"),
    ],
)
def test_what_cannot_be_compressed(run: Run, name: str, data: Any, message: str) -> None:
    if data == "cut":
        data = Path("a.png").read_bytes()[:-200]
    if data is not None:
        Path(name).write_bytes(aec() if data == "aec" else data)
    status, out, err = run("compress", name)
    assert (status, out) == (1, "")
    assert err.startswith(f"aecodec: {name}: ")
    assert message in err
    assert err.count("\n") == 1
    assert len(listing()) == 2 + (data is not None)


def test_no_damaged_file_leaves_an_output(run: Run) -> None:
    data = aec()
    cuts = [data[:n] for n in [*range(0, 40, 3), *range(40, len(data), len(data) // 9)]]
    flips = [data[:n] + bytes([data[n] ^ 16]) + data[n + 1 :] for n in range(0, len(data), 97)]
    for damaged in [*cuts, *flips, Path("a.png").read_bytes()]:
        Path("x.aec").write_bytes(damaged)
        status, out, err = run("decompress", "x.aec", "y.png")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("aecodec: x.aec: ")
    assert listing() == ["a.png", "b.png", "x.aec"]


def test_best_effort(run: Run) -> None:
    data = aec()
    Path("x.aec").write_bytes(data[:-9])
    status, _, err = run("decompress", "x.aec", "y.png", "--best-effort")
    assert status == 3
    assert err.startswith("aecodec: x.aec: ")
    with Image.open("y.png") as image:
        assert image.size == (40, 30)
    Path("x.aec").write_bytes(data)
    assert run("decompress", "x.aec", "y.png", "-f", "--best-effort")[0] == 0


@pytest.mark.parametrize("name", ["y", "y.txt", "y.psd", "y.fits"])
def test_formats_that_cannot_be_written_are_known_before_decoding(run: Run, name: str) -> None:
    Path("x.aec").write_bytes(aec())
    fake_codec.calls.clear()
    status, _, err = run("decompress", "x.aec", name)
    assert (status, err.count("\n")) == (1, 1)
    assert "suffix" in err
    assert not fake_codec.calls


@pytest.mark.parametrize("name", ["y.jpg", "y.JPEG", "y.webp", "y.tif", "y.bmp", "y.ppm", "y.gif"])
def test_formats_by_suffix(run: Run, name: str) -> None:
    Path("x.aec").write_bytes(aec())
    assert run("decompress", "x.aec", name)[0] == 0
    with Image.open(name) as image:
        assert image.size == (40, 30)
        assert Image.registered_extensions()[Path(name).suffix.lower()] == image.format


def test_folders_that_are_missing_or_not_writable(run: Run) -> None:
    status, _, err = run("compress", "a.png", "gone/x.aec")
    assert (status, "the folder gone does not exist" in err) == (1, True)
    Path("file").write_bytes(b"")
    status, _, err = run("compress", "a.png", "b.png", "-o", "file/below")
    assert status == 1
    assert err.count("Not a directory") == 2


def test_a_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    status, _, err = run("compress", "a.png")
    assert (status, "a.aec: cannot be written: No space left on device" in err) == (1, True)
    assert listing() == ["a.png", "b.png"]


def test_limits_on_pixels(run: Run) -> None:
    assert "above the limit" in run("compress", "a.png", "--max-pixels", "1199")[2]
    Path("x.aec").write_bytes(aec())
    assert "above the limit" in run("decompress", "x.aec", "--max-pixels", "1199")[2]
    assert run("decompress", "x.aec", "--max-pixels", "1200")[0] == 0


@pytest.mark.parametrize(
    ("choice", "kept"), [("all", {"ICC", "EXIF"}), ("icc", {"ICC"}), ("none", set())]
)
def test_metadata(run: Run, choice: str, kept: set[str]) -> None:
    exif = Image.Exif()
    exif[0x010E] = "words"
    Image.open("a.png").save("m.png", icc_profile=b"profile", exif=exif)
    assert run("compress", "m.png", "--metadata", choice)[0] == 0
    chunks = {chunk.name for chunk in container.walk(Path("m.aec").read_bytes())}
    assert chunks - {"TILE"} == kept


def test_animations(run: Run) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (0, 255)]
    frames[0].save("an.gif", save_all=True, append_images=frames[1:])
    said = run("compress", "an.gif")[2]
    assert "animations" in said
    assert "--first-frame" in said
    assert run("compress", "an.gif", "--first-frame")[0] == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_the_kinds_of_pictures(run: Run, mode: str) -> None:
    paint("k.png", 3, mode=mode)
    assert run("compress", "k.png")[0] == 0
    assert run("decompress", "k.aec", "back.png")[0] == 0
    assert Image.open("back.png").mode == mode


# Targets


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_size(run: Run, share: float) -> None:
    paint("big.png", 5, (200, 200))
    largest, least = len(aec("big.png", 100)), len(aec("big.png", 0))
    limit = int(least + share * (largest - least))
    assert run("compress", "big.png", "--size", str(limit))[0] == 0
    assert 0.95 * limit < os.path.getsize("big.aec") <= limit


def test_bits_per_pixel_and_psnr(run: Run) -> None:
    paint("big.png", 5, (200, 200))
    line = json.loads(run("compress", "big.png", "--bpp", "4", "--json")[1])
    assert 3.8 < line["bpp"] <= 4
    line = json.loads(run("compress", "big.png", "-f", "--psnr", "36", "--json")[1])
    assert abs(line["psnr"] - 36) < 0.2


def test_score(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "available", lambda: True)
    monkeypatch.setattr(
        seen, "score", lambda a, b: 100 - float(np.abs(np.subtract(a, b, dtype=np.int16)).mean())
    )
    paint("big.png", 5, (200, 200))
    out = run("compress", "big.png", "--ssimulacra2", "97")[1]
    assert re.search(r" dB, SSIMULACRA 2 9[67]\.\d\d, ", out)
    line = json.loads(run("compress", "big.png", "-f", "--ssimulacra2", "97", "--json")[1])
    assert line["ssimulacra2"] == pytest.approx(97, abs=0.25)
    monkeypatch.setattr(seen, "available", lambda: False)
    status, _, err = run("compress", "big.png", "-f", "--ssimulacra2", "97")
    assert status == 2
    assert "--ssimulacra2: needs the package ssimulacra2: pip install ssimulacra2" in err


def test_more_bytes_than_quality_100_needs(run: Run) -> None:
    line = json.loads(run("compress", "a.png", "--size", "1G", "--json")[1])
    assert line["quality"] == 100


def test_targets_out_of_reach(run: Run) -> None:
    for target in (["--size", "10"], ["--bpp", "0.001"], ["--psnr", "2"], ["--psnr", "200"]):
        status, _, err = run("compress", "a.png", *target)
        assert (status, err.count("\n")) == (1, 1)
        assert "cannot be reached: " in err
    assert listing() == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-q", "50", "--size", "60k"],
        ["--bpp", "1", "--psnr", "30"],
        ["-q", "101"],
        ["-q", "-1"],
        ["-q", "nan"],
        ["-q", "high"],
        ["--size", "sixty"],
        ["--bpp", "0"],
        ["--psnr", "nan"],
        ["--metadata", "some"],
        ["-e", "0"],
        ["--effort", "10"],
        ["--effort", "x"],
        ["--time-limit", "0"],
        ["-j", "0"],
        ["--force", "--skip-existing"],
        ["--nonsense"],
        ["-o", "-", "b.png"],
        ["-o", "-", "--json"],
        ["b.png", "c.png", "x.png", "-"],
        ["b.png", "x.aec"],
    ],
)
def test_usage(run: Run, arguments: list[str]) -> None:
    status, out, err = run("compress", "a.png", *arguments)
    assert (status, out) == (2, "")
    assert "Error: " in err
    assert listing() == ["a.png", "b.png"]


# Many files


def test_one_bad_file_does_not_stop_the_others(run: Run) -> None:
    Path("bad.png").write_bytes(b"nothing")
    status, out, err = run("compress", "a.png", "bad.png", "gone.png", "b.png", "-o", "out")
    assert status == 1
    assert out.count("\n") == 2
    lines = err.splitlines()
    assert sum(line.startswith("aecodec: bad.png: ") for line in lines) == 1
    assert sum(line.startswith("aecodec: gone.png: ") for line in lines) == 1
    assert lines[-1] == "2 ok, 2 failed"
    assert listing() == ["a.png", "b.png", "bad.png", "out/a.aec", "out/b.aec"]


def test_trees_there_and_back(run: Run) -> None:
    paint("p/x/c.png", 3)
    paint("p/d.png", 4)
    assert run("compress", "-r", "p", "-o", "q")[0] == 0
    assert run("decompress", "-r", "q", "-o", "r/s", "--format", "bmp")[0] == 0
    assert listing()[2:] == [
        "p/d.png", "p/x/c.png", "q/d.aec", "q/x/c.aec", "r/s/d.bmp", "r/s/x/c.bmp"
    ]  # fmt: skip


def test_skipping_what_is_there(run: Run) -> None:
    run("compress", "a.png")
    before = os.stat("a.aec")
    status, _, err = run("compress", "*.png", "--skip-existing")
    assert (status, err) == (0, "1 ok, 0 failed, 1 skipped\n")
    assert os.stat("a.aec") == before
    assert run("compress", "*.png")[2].endswith("0 ok, 2 failed\n")


def test_json(run: Run) -> None:
    Path("bad.png").write_bytes(b"nothing")
    Image.new("L", (5, 4)).save("flat.png")
    status, out, err = run("compress", "a.png", "bad.png", "flat.png", "--json", "-j", "1")
    first, second, third = map(json.loads, out.splitlines())
    assert status == 1
    assert first["path"] == "a.png"
    assert first["out"] == "a.aec"
    assert first["status"] == "ok"
    assert (first["width"], first["height"], first["mode"]) == (40, 30, "RGB")
    assert first["bytes"] == os.path.getsize("a.aec")
    assert first["source_bytes"] == os.path.getsize("a.png")
    assert first["bpp"] == pytest.approx(first["bytes"] * 8 / 1200, abs=1e-4)
    assert first["quality"] == 75
    assert 30 < first["psnr"] < 70
    assert first["seconds"] >= 0
    assert second["status"] == "failed"
    assert "not a picture" in second["error"]
    assert third["psnr"] is None  # kept exactly
    assert "not a picture" in err


def test_many_small_pictures(run: Run) -> None:
    for number in range(60):
        paint(f"many/{number}.png", number, (9, 7))
    assert run("compress", "many/*.png", "-o", "out", "-j", "4", "--quiet") == (0, "", "")
    assert len(list(Path("out").glob("*.aec"))) == 60
    assert run("decompress", "-r", "out", "-o", "back", "-j", "4")[2] == "60 ok, 0 failed\n"


def test_cores_are_shared_among_the_jobs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def encode(*arguments: Any, **options: Any) -> bytes:
        threads.append(options["threads"])
        return fake_codec.encode_picture(*arguments, **options)

    monkeypatch.setattr(sys.modules["aecodec.codec"], "encode_picture", encode)
    monkeypatch.setattr(jobs, "cores", lambda: 4)
    run("compress", "a.png", "b.png")
    run("compress", "a.png", "-f")
    assert threads == [2, 2, 0]


# Effort


def test_effort_reaches_the_encoder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = fake_codec.options_seen
    seen.clear()
    run("compress", "a.png", "b.png", "-e", "5", "--time-limit", "2.5", "-j", "1")
    assert [(o["effort"], o["time_limit"]) for o in seen] == [(5, 2.5)] * 2
    monkeypatch.setenv("AECODEC_EFFORT", "4")
    run("compress", "a.png", "-f")
    monkeypatch.setenv("AECODEC_COMPRESS_EFFORT", "3")
    run("compress", "a.png", "-f")
    assert [o["effort"] for o in seen[2:]] == [4, 3]


# Models


def test_the_model_reaches_the_encoder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, named = fake_codec.options_seen, weights.names()
    seen.clear()
    run("compress", "a.png")
    run("compress", "a.png", "-f", "-m", "small")
    monkeypatch.setenv("AECODEC_MODEL", "small")
    run("compress", "a.png", "-f")
    run("compress", "a.png", "-f", "--model", named["default"])
    expected = [named[name] for name in ("default", "small", "small", "default")]
    assert [options["model"] for options in seen] == expected


def test_a_model_that_is_not_there(run: Run) -> None:
    status, _, err = run("compress", "a.png", "b.png", "-m", "large")
    assert (status, err.count("\n")) == (1, 1)
    assert "no model 'large' is installed (there are: default (" in err
    assert listing() == ["a.png", "b.png"]


# Help, versions, environment


def test_version(run: Run) -> None:
    status, out, _ = run("--version")
    assert status == 0
    assert out.startswith(f"aecodec {aecodec.__version__}, format {container.VERSION}, ")
    assert "model" in out


@pytest.mark.parametrize("command", ["compress", "decompress", "info"])
def test_help_has_examples(run: Run, command: str) -> None:
    for option in ("--help", "-h"):
        status, out, _ = run(command, option)
        assert status == 0
        assert "Examples:" in out
    assert command in run("--help")[1]
    assert "Exit status:" in run("--help")[1]


def test_defaults_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def quality(*arguments: str) -> float:
        line = run("compress", "a.png", "-f", "--json", *arguments)[1]
        return float(json.loads(line)["quality"])

    monkeypatch.setenv("AECODEC_COMPRESS_QUALITY", "40")
    assert quality() == 40
    assert quality("-q", "50") == 50
    assert quality("--psnr", "40") not in (40, 50)  # the command line goes first
    monkeypatch.setenv("AECODEC_COMPRESS_QUALITY", "400")
    assert run("compress", "a.png", "-f")[0] == 2


def test_the_device_is_handed_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AECODEC_DEVICE", "cpu")  # so that it is restored
    assert run("compress", "a.png", "--device", "auto")[0] == 0
    assert os.environ["AECODEC_DEVICE"] == "auto"
    assert run("compress", "b.png", "--device", "toaster")[0] == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_AECODEC_COMPLETE", f"{shell}_source")
    out = spawn()[1]
    assert b"_AECODEC_COMPLETE" in out


def test_completion_of_commands_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_AECODEC_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "aecodec compress --qua")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert b"--quality" in spawn()[1]


def test_running_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aecodec", "--version"], capture_output=True, check=True
    )
    assert done.stdout.startswith(b"aecodec ")


def test_bench_without_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aecodec.bench.cli", None)
    status, _, err = run("bench", "folder")
    assert (status, err.count("\n")) == (1, 1)
    assert "pip install 'aecodec[bench]'" in err


def test_faults_of_the_program_are_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(sys.modules["aecodec.codec"], "encode_picture", faulty)
    status, _, err = run("compress", "a.png")
    assert (status, err.count("\n")) == (1, 1)
    assert "internal error" in err
    monkeypatch.setenv("AECODEC_DEBUG", "1")
    assert cli.run(["compress", "a.png", "b.png", "-j", "2"]) == 1


@posix
@pytest.mark.parametrize(
    "name", ["new\nline.png", "\x1b[31mred.png", "caf\N{LATIN SMALL LETTER E WITH ACUTE}.png"]
)
def test_names_cannot_steer_the_terminal(run: Run, name: str) -> None:
    os.rename("a.png", name)
    status, out, _ = run("compress", name)
    assert (status, out.count("\n")) == (0, 1)
    assert "\x1b" not in out
    assert run("compress", name)[2].count("\n") == 1


@posix
def test_names_that_are_not_text() -> None:
    os.rename(b"a.png", b"\xff.png")
    status, out, _ = spawn("compress", os.fsdecode(b"\xff.png"))
    assert status == 0
    assert out
    assert b"\xff.aec" in os.listdir(b".")


# info


def test_info(run: Run) -> None:
    Path("x.aec").write_bytes(aec(quality=62.5))
    status, out, err = run("info", "x.aec")
    assert (status, err) == (0, "")
    for text in ("40x30 RGB", "62.5", fake_codec.MODEL.hex(), "bits per pixel", "all match"):
        assert text in out


def test_info_as_json(run: Run) -> None:
    Path("x.aec").write_bytes(aec())
    Path("y.aec").write_bytes(aec("b.png"))
    status, out, err = run("info", "--json", "x.aec", "a.png", "y.aec")
    assert (status, err) == (1, "aecodec: a.png: not an .aec file\n")
    first, second = map(json.loads, out.splitlines())
    assert (first["path"], second["path"]) == ("x.aec", "y.aec")
    assert (first["width"], first["height"], first["mode"]) == (40, 30, "RGB")
    assert first["bytes"] == os.path.getsize("x.aec")
    assert first["chunks"][0][0] == "TILE"
    assert first["damaged"] == []


def test_info_of_a_damaged_file(run: Run) -> None:
    data = bytearray(aec())
    data[-7] ^= 1
    Path("x.aec").write_bytes(data)
    status, out, err = run("info", "x.aec")
    assert (status, "TILE" in err) == (1, True)
    assert "40x30" in out


# Pipes, terminals, signals


def test_pipes_both_ways() -> None:
    status, data, err = spawn("compress", "-", "-", stdin=Path("a.png").read_bytes())
    assert (status, data) == (0, aec())
    assert err.count(b"\n") == 1  # the line about the file
    assert spawn("compress", "a.png", "-o", "-", "--quiet") == (0, data, b"")
    status, ppm, _ = spawn("decompress", "-", "--format", "ppm", stdin=data)
    assert (status, ppm[:3]) == (0, b"P6\n")
    status, png, _ = spawn("decompress", "-", "-", stdin=data)
    assert Image.open(io.BytesIO(png)).size == (40, 30)
    assert spawn("decompress", "-", "-o", "x.png", stdin=data)[0] == 0
    assert Path("x.png").read_bytes() == png
    status, out, _ = spawn("info", "-", "--json", stdin=data)
    assert json.loads(out)["bytes"] == len(data)


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_nothing_is_written_to_a_pipe_for_bad_input(command: str) -> None:
    status, out, err = spawn(command, "-", "-", stdin=b"bad")
    assert (status, out, err.count(b"\n")) == (1, b"", 1)
    assert err.startswith(b"aecodec: standard input: ")


def test_a_reader_that_goes_away() -> None:
    process = subprocess.Popen(
        [*FAKE, "compress", "a.png", "-", "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(100) == 1


def test_a_reader_of_reports_that_goes_away() -> None:
    for number in range(40):
        paint(f"many/{number}.png", number, (9, 7))
    process = subprocess.Popen(
        [*FAKE, "compress", "many/*.png", "--json", "-j", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(100) == 1
    check_no_half_files("many")


@posix
def test_closed_and_full_standard_output() -> None:
    command = " ".join(FAKE)
    shell = subprocess.run(
        f"{command} compress a.png - >&-; echo $?; {command} compress a.png x.aec >&-; echo $?",
        shell=True, capture_output=True, check=True,
    )  # fmt: skip
    assert shell.stdout.split() == [b"1", b"0"]
    assert shell.stderr == b"aecodec: standard output: is closed\n"
    if os.path.exists("/dev/full"):
        for arguments in ("compress a.png -", "compress a.png y.aec", "--help", "info x.aec"):
            done = subprocess.run(
                f"{command} {arguments} >/dev/full", shell=True, capture_output=True, check=False
            )
            assert done.returncode == 1
            # The line about the file goes to standard error when the file goes to the other.
            assert b"standard output: No space left on device" in done.stderr.splitlines()[-1]


@posix
def test_devices_are_written_without_force() -> None:
    assert spawn("compress", "a.png", "-o", "/dev/null")[0] == 0


def terminal(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Run the command with a terminal on all three streams: (status, what it shows)."""
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*FAKE, *arguments], stdin=slave, stdout=slave, stderr=slave,
        env=os.environ | (environment or {}),
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # Linux: the last writer is gone
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    return process.wait(100), shown.decode()


@posix
def test_on_a_terminal() -> None:
    status, shown = terminal("compress", "a.png", "-")
    assert (status, "is a terminal" in shown) == (1, True)
    assert "\x1b[31maecodec:\x1b[0m" in shown
    assert "\x1b" not in terminal("compress", "a.png", "-", environment={"NO_COLOR": "1"})[1]
    status, shown = terminal("decompress", "-", "x.png")
    assert (status, "standard input: is a terminal" in shown) == (1, True)


@posix
def test_the_bar_is_for_several_files_on_a_terminal() -> None:
    status, shown = terminal("compress", "a.png", "b.png", "-o", "out")
    assert (status, "2/2" in shown, "files/s" in shown, "s left" in shown) == (0, *[True] * 3)
    assert "a.png -> out" in shown
    assert "/1" not in terminal("compress", "a.png", "-o", "one/")[1].replace("one/", "")
    assert terminal("compress", "a.png", "b.png", "-f", "-o", "out", "--quiet") == (0, "")
    status, out, err = spawn("compress", "a.png", "b.png", "-f", "-o", "out")
    assert b"2/2" not in out + err


def test_a_single_file_that_takes_long_has_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert console.Console(2, quiet=False, as_json=False, payload=False).progress is None
    assert console.Console(1, quiet=True, as_json=False, payload=False).progress is None
    capsys.readouterr()
    say = console.Console(1, quiet=False, as_json=False, payload=False)
    assert say.progress
    say.progress(0.1)
    assert capsys.readouterr().err == ""  # what is quick has none
    now[0] += 10
    say.progress(0.25)
    assert capsys.readouterr().err == "[######..................] 25 %, 30 s left\r"
    say.finish()
    assert capsys.readouterr().err.strip() == ""


@posix
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_interrupted_batch_leaves_no_half_files(workers: str) -> None:
    for number in range(300):
        paint(f"many/{number}.png", number, (60, 60))
    # Where it is ignored, as in a background job of a shell, a child would ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*FAKE, "compress", "many/*.png", "-o", "out", "-j", workers],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stderr
    process.stdout.readline()  # the first file is done: the batch is under way
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert 0 < check_no_half_files("out") < 300


def check_no_half_files(folder: str) -> int:
    """The number of .aec files in a folder, all of which are whole; and nothing else is new."""
    made = [path for path in Path(folder).iterdir() if path.suffix != ".png"]
    for path in made:
        assert path.suffix == ".aec"
        container.read(path.read_bytes())
    return len(made)
