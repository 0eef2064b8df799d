"""The alpha plane <-> the body of the ALPHA chunk, without loss.

    method 0: one byte follows, the level of every sample
    method 1: a zlib stream follows, of one filter byte and `width` bytes per row
    method 2: a checksum follows, and the plane as VP8L (`aecodec.vp8l`)

Filters predict each sample from left (a), above (b) and above left (c), outside the plane 0;
the byte kept is sample minus prediction modulo 256:

    0: 0     1: a     2: b     3: a + b - c
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from aecodec import vp8l
from aecodec.errors import FormatError, SymbolError

Array = npt.NDArray[np.uint8]

_CONSTANT, _DEFLATE, _VP8L = 0, 1, 2
_VP8L_SAMPLES = 2**24  # at most, for it takes four bytes of memory for each
_BAND = 2**20  # samples handled at a time, so that memory stays near that of the plane
_FEED = 2**16  # bytes given to the decompressor at a time
_MAX_RATIO = 1032  # deflate cannot expand its input further than this


def pack_alpha(alpha: Array) -> bytes:
    """Body of the ALPHA chunk for a (height, width) uint8 plane."""
    if alpha.min() == alpha.max():
        return bytes([_CONSTANT, alpha[0, 0]])
    bodies = [_deflated(alpha)]
    fits = alpha.size <= _VP8L_SAMPLES and max(alpha.shape) <= vp8l.MAX_SIDE
    if fits and vp8l.available():
        bodies.append(struct.pack("<BH", _VP8L, vp8l.checksum(alpha)) + vp8l.pack(alpha))
    return min(bodies, key=len)


def _deflated(alpha: Array) -> bytes:
    """The body by method 1."""
    # Soft edges want a filter per row, text and cut-outs none: try both, keep the shorter.
    packers = [zlib.compressobj(9), zlib.compressobj(9)]
    streams: list[list[bytes]] = [[], []]
    for above, band in _bands(alpha):
        plain = np.pad(band, ((0, 0), (1, 0)))
        for packer, stream, rows in zip(
            packers, streams, (plain, _filter(above, band)), strict=True
        ):
            stream.append(packer.compress(rows.tobytes()))
    for packer, stream in zip(packers, streams, strict=True):
        stream.append(packer.flush())
    return bytes([_DEFLATE]) + min((b"".join(stream) for stream in streams), key=len)


def unpack_alpha(data: bytes, height: int, width: int) -> Array:
    """The (height, width) uint8 plane from the body of an ALPHA chunk.

    Never inflates more than the plane needs. Raises FormatError for every other body, SymbolError
    for samples that are not those coded, UnsupportedError where Pillow lacks what method 2 needs.
    """
    if len(data) == 2 and data[0] == _CONSTANT:
        return np.full((height, width), data[1], np.uint8)
    if data[:1] == bytes([_VP8L]) and height * width <= _VP8L_SAMPLES:
        plane = np.ascontiguousarray(vp8l.unpack(data[3:], height, width, alpha=False)[..., 1])
        if data[1:3] != struct.pack("<H", vp8l.checksum(plane)):
            raise SymbolError("the alpha plane is not the one that was coded")
        return plane
    if not data or data[0] != _DEFLATE:
        raise FormatError("the alpha plane is packed in an unknown way")
    if height * (width + 1) > _MAX_RATIO * len(data):
        raise FormatError("the alpha plane is too short for the picture")
    alpha = np.empty((height, width), np.uint8)
    inflater = _Inflater(data)
    for start, stop in _spans(height, width):
        raw = inflater.take((stop - start) * (width + 1))
        rows = np.frombuffer(raw, np.uint8).reshape(stop - start, width + 1)
        above = alpha[start - 1] if start else np.zeros(width, np.uint8)
        _unfilter(rows, above, alpha[start:stop])
    inflater.finish()
    return alpha


class _Inflater:
    """A zlib stream read in pieces of stated size."""

    def __init__(self, data: bytes) -> None:
        self.view = memoryview(data)[1:]
        self.stream = zlib.decompressobj()

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        out: list[bytes] = []
        while size and not self.stream.eof:
            piece = self._step(size)
            if not piece and not self.view and not self.stream.unconsumed_tail:
                break
            out.append(piece)
            size -= len(piece)
        if size:
            raise FormatError("the alpha plane is too short for the picture")
        return b"".join(out)

    def finish(self) -> None:
        """Check that the stream ends here, checksum and all, and that nothing follows it."""
        while not self.stream.eof:
            if self._step(1):
                raise FormatError("the alpha plane is too long for the picture")
            if not self.view and not self.stream.unconsumed_tail:
                break
        if not self.stream.eof or self.stream.unused_data or self.view:
            raise FormatError("the alpha plane does not end where it should")

    def _step(self, size: int) -> bytes:
        feed: bytes | memoryview = self.stream.unconsumed_tail
        if not feed:
            feed, self.view = self.view[:_FEED], self.view[_FEED:]
        try:
            return self.stream.decompress(feed, size)
        except zlib.error as error:
            raise FormatError(f"the alpha plane cannot be inflated: {error}") from error


def _spans(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Row ranges of about _BAND samples."""
    step = max(1, _BAND // width)
    for start in range(0, height, step):
        yield start, min(start + step, height)


def _bands(alpha: Array) -> Iterator[tuple[Array, Array]]:
    """(row above, rows) for every band of the plane."""
    above = np.zeros(alpha.shape[1], np.uint8)
    for start, stop in _spans(*alpha.shape):
        yield above, alpha[start:stop]
        above = alpha[stop - 1]


def _filter(above: Array, band: Array) -> Array:
    """Rows with their filter byte, the filter of least absolute sum chosen for each row."""
    padded = np.pad(np.vstack((above[None], band)), ((0, 0), (1, 0)))
    a, b, c = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    kept = np.stack((band, band - a, band - b, band - (a + b - c)))  # (4, rows, width), mod 256
    costs = np.abs(kept.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = costs.argmin(axis=0)
    rows = np.empty((band.shape[0], band.shape[1] + 1), np.uint8)
    rows[:, 0] = best
    rows[:, 1:] = kept[best, np.arange(len(best))]
    return rows


def _unfilter(rows: Array, above: Array, out: Array) -> None:
    """Undo the filters of (rows, 1 + width) into `out` (rows, width)."""
    for index, row in enumerate(rows):
        kind, kept = row[0], row[1:]
        if kind == 0:
            out[index] = kept
        elif kind == 1:
            np.cumsum(kept, dtype=np.uint8, out=out[index])
        elif kind == 2:
            np.add(kept, above, out=out[index])
        elif kind == 3:
            # sample minus b is predicted by its left neighbour a - c.
            np.cumsum(kept, dtype=np.uint8, out=out[index])
            out[index] += above
        else:
            raise FormatError(f"the alpha plane uses the unknown filter {kind}")
        above = out[index]
