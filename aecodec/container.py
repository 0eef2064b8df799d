"""The .aec container: bytes <-> head and chunks. docs/format.md is the normative text.

    head (`aecodec.head`)
    then chunks:  type 1 | length v | body | CRC-32 4      (v = canonical LEB128 varint)
    and the last: type 1 | body up to the end of the file | CRC-32 4

Only the standard library is used and no pixel or symbol is looked at, so this module is cheap
enough for `info` and for `PIL.Image.open`. Every size is checked before anything of that size
is made: what is returned never takes more memory than the file itself.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from aecodec.errors import ChecksumError, FormatError, LimitError, UnsupportedError
from aecodec.head import (
    HEAD_MAX,
    MAGIC,
    MAX_PIXELS,
    MAX_SIDE,
    MAX_TILE_PIXELS,
    TILE_SIDES,
    VERSION,
    Axes,
    Colour,
    Header,
    is_aec,
    is_vp8l,
    pack_head,
    read_header,
    unpack_head,
)
from aecodec.varint import pack_varint, unpack_varint

# Whoever reads files finds all of the format here.
__all__ = [
    "HEAD_MAX",
    "MAGIC",
    "MAX_LENGTH",
    "MAX_METADATA",
    "MAX_PIXELS",
    "MAX_SIDE",
    "MAX_STRAY",
    "MAX_TILE_PIXELS",
    "MIN_FILTER",
    "MIN_TILE_CHUNK",
    "TILE_SIDES",
    "VERSION",
    "AecFile",
    "Axes",
    "Chunk",
    "ChunkType",
    "Colour",
    "Header",
    "Tile",
    "is_aec",
    "read",
    "read_header",
    "walk",
    "write",
]

MAX_METADATA = 2**24  # bytes of one chunk that is neither ALPHA nor a tile
MIN_FILTER = 11  # bytes of a FILTER chunk
MAX_LENGTH = 2**32 - 1  # bytes of one chunk body
MIN_TILE_CHUNK = 1 + 2 + 1 + 4  # type, symbol checksum, one payload byte, CRC-32
NOT_EXACT = "not a VP8L stream of the tile's size"
MAX_STRAY = 2**16  # bytes appended to a file that best effort can tell from its last tile


class ChunkType(IntEnum):
    """Known chunk types; bit 7 marks the ancillary ones, which a reader may skip."""

    ALPHA = 0x01
    TILE = 0x02
    # Far from the others: one flipped bit makes neither of them, nor another of one of them.
    FILTER = 0x55
    LAST_TILE = 0x7C
    ICC = 0x81
    EXIF = 0x82
    XMP = 0x83


Box = tuple[int, int, int, int]  # left, top, right, bottom
_ANCILLARY = 0x80
_TILES = (ChunkType.TILE, ChunkType.LAST_TILE)
# At most one of each.
_SINGLE = (ChunkType.ALPHA, ChunkType.FILTER, ChunkType.ICC, ChunkType.EXIF, ChunkType.XMP)


@dataclass(frozen=True)
class Tile:
    """One coded tile: 16-bit checksum of its symbols, and the range coder's bytes.

    Of an exact picture those of its samples, and a lossless stream (`aecodec.exact`). layer: what
    is kept exactly of another one (`aecodec.layer`), if anything is.
    """

    checksum: int
    payload: bytes
    layer: bytes = b""


@dataclass(frozen=True)
class AecFile:
    """A whole file. A tile (or the alpha) is None only when read with damaged_ok=True.

    filter: how the filter's last layer is tuned to the picture (`aecodec.tuning`), or None.
    """

    header: Header
    tiles: tuple[Tile | None, ...]
    alpha: bytes | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    filter: bytes | None = None


@dataclass(frozen=True)
class Chunk:
    """Where one chunk lies in the file: its first byte, its body's first byte and length."""

    type: int
    offset: int
    start: int
    length: int
    intact: bool

    @property
    def name(self) -> str:
        """ICC, EXIF, XMP, ALPHA, TILE, or the number of an unknown type."""
        if self.type not in ChunkType.__members__.values():
            return f"0x{self.type:02x}"
        return ChunkType(self.type).name.removeprefix("LAST_")


def write(file: AecFile) -> bytes:
    """The bytes of `file`. Equal input gives equal bytes. Raises FormatError, LimitError."""
    header = file.header
    if len(file.tiles) != header.tile_count:
        raise FormatError(f"{len(file.tiles)} tiles given, {header.tile_count} needed")
    if header.exact and file.filter is not None:
        raise FormatError("an exact picture has no filter to tune")
    if header.alpha != (file.alpha is not None):
        raise FormatError("the alpha chunk and the head do not agree")
    head = pack_head(header)
    crc = zlib.crc32(head)  # seeding with it ties the chunks to this file
    out = [head]
    metadata = ((ChunkType.ICC, file.icc), (ChunkType.EXIF, file.exif), (ChunkType.XMP, file.xmp))
    critical = ((ChunkType.FILTER, file.filter), (ChunkType.ALPHA, file.alpha))
    for kind, body in (*metadata, *critical):
        if body is not None:
            out.append(_pack_chunk(kind, body, crc))
    for left, tile in zip(reversed(range(len(file.tiles))), file.tiles, strict=True):
        if tile is None or not tile.payload:
            raise FormatError("a tile without payload cannot be written")
        if tile.layer and not header.layered:
            raise FormatError("a layer and the head do not agree")
        layer = pack_varint(len(tile.layer)) + tile.layer if header.layered else b""
        body = struct.pack("<H", tile.checksum) + layer + tile.payload
        out.append(_pack_chunk(ChunkType.TILE if left else ChunkType.LAST_TILE, body, crc))
    return b"".join(out)


def walk(data: bytes, max_pixels: int = MAX_PIXELS) -> list[Chunk]:
    """The chunks of a file in order, damaged ones marked; bodies are not interpreted.

    Raises what read_header raises, and FormatError where no further chunk can be framed.
    """
    _, offset = unpack_head(data, max_pixels)
    return list(_chunks(data, offset))


def read(data: bytes, max_pixels: int = MAX_PIXELS, *, damaged_ok: bool = False) -> AecFile:
    """The whole file, every rule of the format checked.

    Raises FormatError, ChecksumError, UnsupportedError or LimitError. With `damaged_ok` a damaged
    or missing tile is None, damaged metadata is left out, a damaged alpha chunk gives alpha None,
    up to MAX_STRAY appended bytes are passed over; the head must be intact all the same.
    """
    header, offset = unpack_head(data, max_pixels)
    count = header.tile_count
    if count * MIN_TILE_CHUNK > len(data) - offset and not damaged_ok:
        raise FormatError(f"file cut short: {count} tiles do not fit in {len(data)} bytes")
    boxes = header.boxes
    tiles: list[Tile | None] = []
    others: dict[int, bytes | None] = {}
    try:
        for chunk in _chunks(data, offset):
            if not chunk.intact and not damaged_ok:
                raise ChecksumError(f"{chunk.name} chunk at byte {chunk.offset} is damaged")
            if not chunk.intact and chunk.type == ChunkType.LAST_TILE:
                chunk = _without_stray(data, chunk, zlib.crc32(data[:offset]))
            body = bytes(data[chunk.start : chunk.start + chunk.length]) if chunk.intact else None
            kind = _check_chunk(chunk, header, others, len(tiles))
            if kind == ChunkType.TILE:
                tiles.append(_tile(body, header, next(boxes), chunk, damaged_ok))
            else:
                others[kind] = body
        if len(tiles) < count:
            raise FormatError(f"file cut short: {count - len(tiles)} of {count} tiles missing")
    except FormatError:
        if not damaged_ok:
            raise
    tiles += [None] * (count - len(tiles))
    alpha, tuning, icc, exif, xmp = (others.get(kind) for kind in _SINGLE)
    return AecFile(header, tuple(tiles), alpha, icc, exif, xmp, tuning)


def _tile(
    body: bytes | None, header: Header, box: Box, chunk: Chunk, damaged_ok: bool
) -> Tile | None:
    """The tile in the body of a chunk; None for a damaged one."""
    if body is None:
        return None
    checksum, at, layer = int.from_bytes(body[:2], "little"), 2, b""
    size, where = (box[2] - box[0], box[3] - box[1]), f"{chunk.name} chunk at byte {chunk.offset}"
    try:
        if header.exact and not is_vp8l(body[2:7], *size):
            raise FormatError(f"{where}: {NOT_EXACT}")
        if header.layered:
            length, at = unpack_varint(body, 2, 4, where)
            layer, at = body[at : at + length], at + length
            if at >= len(body):
                raise FormatError(f"{where}: no payload after the layer")
            if layer and not is_vp8l(layer[2:7], *size, alpha=True):
                raise FormatError(f"{where}: the layer is {NOT_EXACT}")
    except FormatError:
        if not damaged_ok:
            raise
        return None
    return Tile(checksum, body[at:], layer)


def _check_chunk(chunk: Chunk, header: Header, others: dict[int, bytes | None], tiles: int) -> int:
    """The type of a chunk that may stand here; `others` and `tiles` tell what came before it."""
    kind, where = chunk.type, f"{chunk.name} chunk at byte {chunk.offset}"
    if tiles == header.tile_count:
        raise FormatError(f"bytes after the last tile, at byte {chunk.offset}")
    if not chunk.intact:
        # The type itself may be what was damaged: take the next one due, so that tiles keep place.
        if kind >= _ANCILLARY and kind in _SINGLE and not tiles:
            return kind
        if (kind ^ ChunkType.FILTER).bit_count() < 2 and not tiles:
            return ChunkType.FILTER
        return ChunkType.ALPHA if header.alpha and ChunkType.ALPHA not in others else ChunkType.TILE
    if kind < _ANCILLARY and kind not in ChunkType.__members__.values():
        raise UnsupportedError(f"critical chunk {chunk.name} is unknown to this release")
    if kind in others:
        raise FormatError(f"second {where}")
    if kind == ChunkType.FILTER and header.exact:
        raise FormatError(f"{where} in an exact picture")
    if kind in _TILES and (kind == ChunkType.LAST_TILE) != (tiles + 1 == header.tile_count):
        raise FormatError(f"{where} and the number of tiles, {header.tile_count}, do not agree")
    late = tiles or ChunkType.ALPHA in others or (kind >= _ANCILLARY and ChunkType.FILTER in others)
    if kind not in _TILES and late:
        raise FormatError(f"{where} is out of order")
    if kind == ChunkType.ALPHA and not header.alpha:
        raise FormatError(f"{where} in a picture without alpha")
    if kind in _TILES and header.alpha and ChunkType.ALPHA not in others:
        raise FormatError("the ALPHA chunk is missing")
    if kind not in (ChunkType.ALPHA, *_TILES) and chunk.length > MAX_METADATA:
        raise LimitError(f"{where} is larger than {MAX_METADATA} bytes")
    least = 3 if kind in _TILES else MIN_FILTER if kind == ChunkType.FILTER else 1
    if chunk.length < least:
        raise FormatError(f"{where} is too short")
    return ChunkType.TILE if kind in _TILES else kind


def _pack_chunk(kind: ChunkType, body: bytes, seed: int) -> bytes:
    limit = MAX_METADATA if kind & _ANCILLARY else MAX_LENGTH
    if not 1 <= len(body) <= limit:
        raise LimitError(f"{kind.name} chunk of {len(body)} bytes: must be 1 to {limit}")
    start = bytes([kind])
    if kind != ChunkType.LAST_TILE:  # it ends with the file
        start += pack_varint(len(body))
    return start + body + struct.pack("<I", zlib.crc32(body, zlib.crc32(start, seed)))


def _chunks(data: bytes, offset: int) -> Iterator[Chunk]:
    """Frame the chunks from `offset` (the end of the head) to the end of the file."""
    seed = zlib.crc32(data[:offset])
    view = memoryview(data)
    while offset < len(data):
        if data[offset] == ChunkType.LAST_TILE:
            start, length = offset + 1, max(0, len(data) - offset - 5)
        else:
            length, start = unpack_varint(data, offset + 1, 5, "chunk")
        if length > len(data) - start - 4:
            raise FormatError(f"file cut short inside the chunk at byte {offset}")
        (crc,) = struct.unpack_from("<I", data, start + length)
        intact = zlib.crc32(view[offset : start + length], seed) == crc
        yield Chunk(data[offset], offset, start, length, intact)
        offset = start + length + 4


def _without_stray(data: bytes, chunk: Chunk, seed: int) -> Chunk:
    """A damaged last tile cut where its CRC-32 matches: there may be bytes behind it."""
    end = chunk.start + chunk.length
    first = max(chunk.start, end - MAX_STRAY)
    crc = zlib.crc32(data[chunk.offset : first], seed)
    for stop in range(first, end):
        if crc == int.from_bytes(data[stop : stop + 4], "little"):
            return Chunk(chunk.type, chunk.offset, chunk.start, stop - chunk.start, intact=True)
        crc = zlib.crc32(data[stop : stop + 1], crc)
    return chunk
