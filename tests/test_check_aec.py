"""The document, the checker made from it and the container agree."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripts import load_script

from aecodec import container, head
from aecodec.alpha import pack_alpha
from aecodec.container import AecFile, Colour, Header, Tile
from aecodec.errors import AecError
from aecodec.head import vp8l_start
from aecodec.varint import pack_varint

ROOT = Path(__file__).resolve().parent.parent
MODEL = bytes.fromhex("0a1b2c3d")
RAMP = np.add.outer(np.arange(130), np.arange(200)).astype(np.uint8)
TILED = AecFile(
    Header(MODEL, Colour.GREY, True, 200, 130, 10000, 128),
    tuple(Tile(index, b"payload"[index:]) for index in range(4)),
    alpha=pack_alpha(RAMP),
    icc=b"profile",
    exif=b"MM\0*exif",
    filter=b"last weights",
)


CHECKER, DUMP = load_script("tools/check_aec.py"), load_script("tools/format_example.py")
EXAMPLE: AecFile = DUMP.EXAMPLE
EXACT = AecFile(
    Header(bytes(4), Colour.RGB, False, 200, 130, 10000, 128, exact=True),
    tuple(
        Tile(index, vp8l_start(*sides) + b"stream")
        for index, sides in enumerate(((128, 128), (72, 128), (128, 2), (72, 2)))
    ),
)
LAYERED = AecFile(
    Header(MODEL, Colour.RGB, False, 200, 130, 7500, 128, layered=True),
    (
        Tile(0, b"payload", b"ab" + vp8l_start(128, 128) + b"all of it"),
        Tile(1, b"payload", b"cd" + vp8l_start(72, 128, True) + b"parts" * 30),
        Tile(2, b"p"),
        Tile(3, b"pay", b"ef" + vp8l_start(72, 2, True)),
    ),
)


def check(data: bytes) -> list[str]:
    report: list[str] = []
    CHECKER.check_chunks(CHECKER.Bytes(data), report)
    return report


def test_dump_in_the_document_is_what_the_code_writes() -> None:
    """Its bytes one after the other are the file; the rest of it is what the tool writes."""
    text = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")
    (dump,) = re.findall(r"```hex\n(.*?)```", text, re.DOTALL)
    rows = [line.split("|")[0].split() for line in dump.splitlines()]
    assert " ".join(byte for row in rows for byte in row[1:]) == container.write(EXAMPLE).hex(" ")
    assert dump == DUMP.dump()


def test_document_states_the_limits_of_the_code() -> None:
    assert (container.MAX_SIDE, container.MAX_PIXELS) == (65535, 2**28)
    assert (container.MAX_TILE_PIXELS, container.MAX_METADATA) == (2**22, 2**24)
    assert container.MIN_TILE_CHUNK == 8
    assert container.TILE_SIDES[0] == 128
    assert container.HEAD_MAX == 26
    assert container.TILE_SIDES[-1] == 8192


def test_report() -> None:
    assert check(container.write(EXAMPLE)) == [
        "head: 300x2 RGB with alpha, quality 75, model 0a1b2c3d",
        "tiles: 1",
        "XMP at byte 17: 4 bytes",
        "ALPHA at byte 27: 2 bytes",
        "LAST TILE at byte 35: 5 bytes, symbols 1234",
    ]
    assert "tiles: 4 of side 128" in check(container.write(TILED))


@pytest.mark.parametrize("file", [EXAMPLE, TILED, EXACT, LAYERED])
def test_flips_and_truncations_are_refused(file: AecFile) -> None:
    data = container.write(file)
    for index in range(len(data)):
        with pytest.raises(CHECKER.Refused):
            check(data[:index])
        with pytest.raises(CHECKER.Refused):
            check(data[:index] + bytes([data[index] ^ 1 << index % 8]) + data[index + 1 :])


def verdicts(data: bytes) -> tuple[bool, bool]:
    """Whether the package and the checker take the file (its alpha plane left aside)."""
    answers = []
    for reader, error in ((container.read, AecError), (check, CHECKER.Refused)):
        try:
            reader(data)
        except error:
            answers.append(False)
        else:
            answers.append(True)
    return answers[0], answers[1]


def resealed(data: bytes) -> bytes:
    """The same chunks with every CRC-32 made right, as far as they can be framed."""
    try:
        _, end = head.unpack_head(data, 2**32)
    except AecError:
        return data
    out, seed = bytearray(data), zlib.crc32(data[:end])
    try:
        for part in container._chunks(data, end):
            stop = part.start + part.length
            crc = zlib.crc32(data[part.offset : stop], seed)
            out[stop : stop + 4] = crc.to_bytes(4, "little")
    except AecError:
        pass
    return bytes(out)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_both_readers_give_the_same_verdict(data: st.DataObject) -> None:
    """Mutations with right checksums reach the rules behind them."""
    original = container.write(EXAMPLE)
    start = data.draw(st.integers(17, len(original)))
    end = data.draw(st.integers(start, min(len(original), start + 12)))
    noise = st.binary(max_size=12) | st.sampled_from([original[17:27], original[35:]])
    mutated = resealed(original[:start] + data.draw(noise) + original[end:])
    ours, theirs = verdicts(mutated)
    plane_aside = ours and container.read(mutated).alpha != EXAMPLE.alpha
    assert ours == theirs or plane_aside


HEAD = st.tuples(
    st.integers(0, 255),
    st.sampled_from([b"\x00", b"\x7f", b"\x80\x01", b"\xfe\xff\x03", b"\xff\xff\x03", b"\x80\x00"]),
    st.sampled_from([b"\x00", b"\xff\x7f", b"\xff\xff\x00", b"\xff\xff\xff\x01"]),
    st.integers(0, 0xFFFF) | st.just(10000),
    st.sampled_from([b"", bytes(6), b"\x01\xfe\x7f" * 2, b"\x00\x80\x01\0\0\0", b"\0\0\0\1\1\1"]),
    st.sampled_from([b"modl", bytes(4)]),
)


@settings(max_examples=400, deadline=None)
@given(HEAD)
def test_both_readers_agree_on_heads(fields: tuple[int, bytes, bytes, int, bytes, bytes]) -> None:
    kind, width, height, quality, axes, model = fields
    head = b"\x89AEC\x01" + model + bytes([kind]) + width + height + pack_varint(quality) + axes
    head += (zlib.crc32(head) % 2**16).to_bytes(2, "little")
    streams = [b"", *(vp8l_start(*sides) for sides in ((1, 1), (128, 1), (255, 255)))]
    layers = [b"\0", b"\x07ab" + vp8l_start(1, 1), b"\x09ab" + vp8l_start(128, 1, True) + b"cd"]
    streams += [*layers, b"\x08" + layers[1][1:]]
    for body, stream in itertools.product((b"\x01\x02\x00\xff", b""), streams):
        chunks = b""
        for chunk in (body, b"\x7cab" + stream + b"cde"):
            crc = zlib.crc32(head + chunk).to_bytes(4, "little")
            chunks += chunk + crc if chunk else b""
        ours, theirs = verdicts(head + chunks)
        assert ours == theirs


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\x02", "unknown method"),
        (b"\x03abc", "unknown method"),
        (b"\x02abc", "VP8L"),
        (b"\x02ab" + vp8l_start(300, 2, True) + b"stream", "VP8L"),
        (b"\x00", "unknown method"),
        (b"\x01abc", "alpha: Error"),
        (b"\x01" + zlib.compress(bytes(602)) + b"x", "size of the picture"),
        (b"\x01" + zlib.compress(bytes(601)), "size of the picture"),
        (b"\x01" + zlib.compress(bytes(10**7)), "size of the picture"),
        (b"\x01" + zlib.compress(b"\x04" + bytes(601)), "unknown filter"),
    ],
)
def test_alpha_is_checked(body: bytes, message: str) -> None:
    data = container.write(AecFile(EXAMPLE.header, EXAMPLE.tiles, alpha=body))
    with pytest.raises(CHECKER.Refused, match=message):
        check(data)


def test_command(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.aec", tmp_path / "bad.aec"
    good.write_bytes(container.write(TILED))
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    command = [sys.executable, "-I", str(ROOT / "tools" / "check_aec.py")]
    done = subprocess.run([*command, str(good)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{good}: ok\n  head: 200x130 grey with alpha")
    done = subprocess.run([*command, str(bad), str(good)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"{bad}: refused: not an .aec file\n"


@pytest.mark.skipif(shutil.which("file") is None, reason="no file(1) here")
def test_file_magic(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    command = ["file", "-b", "-m", str(ROOT / "docs" / "aec.magic")]
    for file, text in (
        (EXACT, "model 00000000, RGB, exact"),
        (EXAMPLE, "model 0a1b2c3d, RGB, with alpha"),
    ):
        path.write_bytes(container.write(file))
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True)
        assert done.stdout == f"AEC learned-codec image data, version 1, {text}\n"
    kind = subprocess.run([*command, "-i", str(path)], capture_output=True, text=True, check=True)
    assert kind.stdout.startswith("image/x-aec")


def test_checker_is_short_and_stands_alone() -> None:
    text = (ROOT / "tools" / "check_aec.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    imports = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
    assert imports <= set(sys.stdlib_module_names)
