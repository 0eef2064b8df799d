"""Throw damaged and hostile files at the decoder and count what comes back.

    python tools/fuzz.py [--container N] [--full M] [--seconds S] [--seed SEED]

Container mutations go through the container and `info`; full mutations are decoded to pixels,
half of them with their checksums made right again so that they reach the alpha plane, the range
coder and the networks. Anything but a picture or an AecError ends the run with exit status 1 and
the input in fuzz-crash.aec. Prints inputs tried, errors by kind, the slowest input and memory.
"""

from __future__ import annotations

import argparse
import collections
import random
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

import aecodec
from aecodec import codec, container, layer, repeats, tuning
from aecodec.container import AecFile, Colour, Header, Tile
from aecodec.errors import AecError
from aecodec.head import FINEST, vp8l_start
from aecodec.model import open_model
from aecodec.picture import Picture

MAX_PIXELS = 2**14  # of a decoded mutant: a tiny file may claim any picture that is allowed
INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0xFF)


def exactly(picture: Picture) -> AecFile | None:
    """Its exact file, however large."""
    return codec.Encoder(picture).exact


def layered(data: bytes, pixels: npt.NDArray[np.uint8]) -> bytes:
    """The file of a picture of one tile with every third row, and all on the left, kept exactly."""
    file = container.read(data)
    taken = np.zeros(pixels.shape[:2], bool)
    taken[::3] = taken[:, :9] = True
    over = replace(file.tiles[0] or Tile(0, b""), layer=layer.pack(pixels, taken))
    return container.write(replace(file, header=replace(file.header, layered=True), tiles=(over,)))


def seeds() -> list[bytes]:
    """Small files of every kind; equal for equal weights."""
    y, x = np.mgrid[:50, :70]
    grey = ((x * 3 + y * 2) % 256).astype(np.uint8)
    colour, soft = np.dstack([grey, grey.T[:50, :50].repeat(2, 1)[:, :70], 255 - grey]), grey | 15
    pictures = [
        Picture(grey[:9, :8]),
        Picture(colour, icc=b"profile" * 4, exif=b"II*\0exif", xmp=b"<x/>"),
        Picture(grey[:20, :33], soft[:20, :33]),
        Picture(colour[:17, :16], np.full((17, 16), 128, np.uint8)),
        Picture(grey, (np.hypot(x - 35, y - 25) * 6).astype(np.uint8)),  # alpha as VP8L
        Picture((grey[..., None] * np.array([6, 3, 1]) // 7).astype(np.uint8)),  # axes turned
    ]
    files = [
        codec.encode_picture(one, quality, exactly=False)
        for one in pictures
        for quality in (10, 80)
    ]
    before = codec.TILE, codec.SINGLE_TILE_PIXELS, repeats.PROMISING
    repeats.PROMISING = 0.0
    try:
        codec.TILE, codec.SINGLE_TILE_PIXELS = 128, 64
        wide = Picture(colour[:2].repeat(3, 1))
        files.append(codec.encode_picture(wide, 40, exactly=False))
        files += [container.write(same) for one in (*pictures[:2], wide) if (same := exactly(one))]
    finally:
        codec.TILE, codec.SINGLE_TILE_PIXELS, repeats.PROMISING = before
    files += [layered(files[2 * index + 1], one.pixels) for index, one in enumerate(pictures[:4])]
    model = open_model()
    if model.networks.can_tune:
        last = tuning.Layer.of(model, 3)
        amount = (np.arange(last.weight.size) % 9 == 0).astype(np.int32).reshape(last.weight.shape)
        body = tuning.Change(1, (5,) * tuning.CLASSES, amount).packed(model)
        files.append(container.write(replace(container.read(files[3]), filter=body)))
    return files


def mutate(data: bytes, source: random.Random) -> bytes:
    """A few changes at random places: bytes set, flipped, cut, doubled, moved, replaced."""
    out = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 3, 8))):
        at = source.randrange(len(out) + 1)
        size = source.choice((1, 1, 2, 4, source.randrange(1, 40)))
        kind = source.randrange(8)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << source.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = source.choice(INTERESTING)
        elif kind == 2:
            out[at : at + size] = source.randbytes(size)
        elif kind == 3:
            del out[at : at + size]
        elif kind == 4:
            out[at:at] = source.randbytes(size)
        elif kind == 5:
            other = source.randrange(len(out) + 1)
            out[at:at] = out[other : other + size]
        elif kind == 6:
            del out[at:]
        elif at < len(out):
            out[at] = (out[at] + source.choice((-1, 1))) % 256
        if not out:
            break
    return bytes(out)


def resealed(data: bytes) -> bytes:
    """The same bytes with every CRC-32 made right, as far as the file can be framed."""
    out, at = bytearray(data), 10
    for _ in range(3):  # the two sides and the quality
        while at < len(out) and out[at] & 0x80:
            at += 1
        at += 1
    if len(out) > 9 and out[9] & 8:  # turned axes
        at += 6
    end = at + 2
    if len(out) < end:
        return data
    out[at:end] = (zlib.crc32(out[:at]) % 2**16).to_bytes(2, "little")
    seed = zlib.crc32(out[:end])
    try:
        for chunk in container._chunks(bytes(out), end):
            stop = chunk.start + chunk.length
            crc = zlib.crc32(out[chunk.offset : stop], seed)
            out[stop : stop + 4] = crc.to_bytes(4, "little")
    except AecError:
        pass  # what follows a broken frame stays as it is
    return bytes(out)


def rebuilt(data: bytes, source: random.Random) -> bytes:
    """A well-formed file whose payload, alpha or head is wrong."""
    file = container.read(data)
    header, alpha = file.header, file.alpha
    if source.randrange(3) == 0:
        sides = [source.choice((1, 15, 16, 63, 64, 65, 100, 128)) for _ in range(2)]
        tile = source.choice((0, 0, 128, 8192))
        quality = source.randrange(10001)
        colour = source.choice((Colour.GREY, Colour.RGB))
        axes = [source.randrange(-127, 128) * (colour == Colour.RGB) for _ in range(6)]
        axes = axes if any(axes[:3]) and source.randrange(2) else [0] * 6
        start = header.model_id, colour, header.alpha, sides[0], sides[1]
        six = (axes[0], axes[1], axes[2], axes[3], axes[4], axes[5])
        if header.exact:
            header = Header(*start, FINEST, tile, exact=True)
        else:
            header = Header(*start, quality, tile, six, layered=header.layered)
    if alpha is not None and source.randrange(3) == 0:
        alpha = mutate(alpha, source) or b"\0"
    tiles = []
    for index, (left, top, right, bottom) in enumerate(header.boxes):
        old = file.tiles[index % len(file.tiles)]
        payload = b"" if old is None else old.payload
        if source.randrange(4):
            payload = mutate(payload, source)
        if header.exact:  # a stream of the right size
            payload = vp8l_start(right - left, bottom - top) + payload[5:]
        over = b"" if old is None else old.layer
        if over:
            sides = [right - left, bottom - top]
            over = mutate(over, source) if source.randrange(2) else over
            over = over[:2].ljust(2) + vp8l_start(*sides, bool(source.randrange(4))) + over[7:]
        tiles.append(
            Tile(source.randrange(2**16) if old is None else old.checksum, payload or b"\0", over)
        )
    return container.write(AecFile(header, tuple(tiles), alpha, file.icc, file.exif, file.xmp))


def read_container(data: bytes) -> None:
    """All that needs no model."""
    aecodec.info(data)
    container.read(data, damaged_ok=True)
    container.read(data)


def decode(data: bytes) -> None:
    """All the way to pixels, then as far as best effort goes."""
    try:
        codec.decode_file(data, max_pixels=MAX_PIXELS, threads=1)
    except AecError:
        if len(data) % 4 == 0:
            codec.decode_damaged(data, max_pixels=MAX_PIXELS, threads=1)
        raise


class Run:
    """Inputs tried and what became of them."""

    def __init__(self, name: str) -> None:
        self.name, self.kinds = name, collections.Counter[str]()
        self.messages = collections.Counter[str]()
        self.slowest, self.start = 0.0, time.perf_counter()

    def take(self, data: bytes, target: Callable[[bytes], None]) -> None:
        """Try one input."""
        begin = time.process_time()
        try:
            target(data)
            self.kinds["accepted"] += 1
        except AecError as error:
            self.kinds[type(error).__name__] += 1
            self.messages["".join(c for c in str(error) if not c.isdigit())[:60]] += 1
        except BaseException:
            Path("fuzz-crash.aec").write_bytes(data)
            raise
        self.slowest = max(self.slowest, time.process_time() - begin)

    def report(self) -> None:
        """Print the figures."""
        seconds = time.perf_counter() - self.start
        print(f"{self.name}: {sum(self.kinds.values())} inputs in {seconds:.0f} s")
        for kind, count in self.kinds.most_common():
            print(f"  {kind:<18} {count:>9}")
        print(
            f"  slowest input {self.slowest * 1000:.0f} ms of processor time, {peak()} MiB at most"
        )
        print(f"  {len(self.messages)} different messages", flush=True)


def peak() -> int:
    """Largest resident memory of this process so far, in MiB."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--container", type=int, default=100000)
    parser.add_argument("--full", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each part")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    corpus, source = seeds(), random.Random(options.seed)
    print(f"model {codec.open_model().weights.id.hex()}, {len(corpus)} seeds of "
          f"{min(map(len, corpus))} to {max(map(len, corpus))} bytes")  # fmt: skip
    run = Run("container")
    while sum(run.kinds.values()) < options.container and _left(run, options.seconds):
        data = mutate(source.choice(corpus), source)
        run.take(resealed(data) if source.randrange(2) else data, read_container)
    run.report()
    run = Run("full decoding")
    while sum(run.kinds.values()) < options.full and _left(run, options.seconds):
        data, kind = source.choice(corpus), source.randrange(4)
        data = rebuilt(data, source) if kind > 1 else mutate(data, source)
        run.take(resealed(data) if kind else data, decode)
    run.report()
    return 0


def _left(run: Run, seconds: float) -> bool:
    return time.perf_counter() - run.start < seconds


if __name__ == "__main__":
    sys.exit(main())
