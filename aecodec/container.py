"""The .aec container: bytes <-> head and chunks. docs/format.md is the normative text.

    magic 4 | version 1 | model id 4 | kind 1 | width-1 v | height-1 v | quality v |
        axes 6, if the kind says so | check 2
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
from aecodec.varint import pack_varint, unpack_varint

MAGIC = b"\x89AEC"
VERSION = 1
HEAD_MAX = 26  # bytes: the longest head, so this prefix is enough for read_header

MAX_SIDE = 65535  # pixels
MAX_PIXELS = 2**28  # what readers accept unless told otherwise
MAX_TILE_PIXELS = 2**22  # bounds the memory of one tile; larger pictures must be tiled
MAX_METADATA = 2**24  # bytes of one chunk that is neither ALPHA nor a tile
MIN_FILTER = 11  # bytes of a FILTER chunk
MAX_LENGTH = 2**32 - 1  # bytes of one chunk body
MIN_TILE_CHUNK = 1 + 2 + 1 + 4  # type, symbol checksum, one payload byte, CRC-32
MAX_STRAY = 2**16  # bytes appended to a file that best effort can tell from its last tile
TILE_SIDES = tuple(64 << code for code in range(1, 8))  # 128 to 8192 pixels

_KIND_COLOUR, _KIND_ALPHA, _KIND_AXES, _TILE_SHIFT = 0x03, 0x04, 0x08, 4


Axes = tuple[int, int, int, int, int, int]  # rotation, shift
_NO_AXES: Axes = (0, 0, 0, 0, 0, 0)


class Colour(IntEnum):
    """Colour planes of the coded picture; the value is the low two bits of the kind byte."""

    GREY = 0
    RGB = 1


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


_ANCILLARY = 0x80
_AXES_LIMIT = 127
_TILES = (ChunkType.TILE, ChunkType.LAST_TILE)
# At most one of each.
_SINGLE = (ChunkType.ALPHA, ChunkType.FILTER, ChunkType.ICC, ChunkType.EXIF, ChunkType.XMP)


@dataclass(frozen=True)
class Header:
    """What the head of a file says. Sizes in pixels, quality in hundredths, tile 0 = one tile.

    axes: how the colours were turned before they were coded (`aecodec.axes`), -127 to 127 each.
    Raises LimitError or FormatError when the fields cannot stand in a file.
    """

    model_id: bytes
    colour: Colour
    alpha: bool
    width: int
    height: int
    quality: int
    tile: int = 0
    axes: Axes = _NO_AXES

    def __post_init__(self) -> None:
        if len(self.model_id) != 4:
            raise FormatError(f"the model id has {len(self.model_id)} bytes instead of 4")
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise LimitError(f"{self.width}x{self.height}: sides must be 1 to {MAX_SIDE} pixels")
        if not 0 <= self.quality <= 10000:
            raise FormatError(f"quality {self.quality / 100:g} is not between 0 and 100")
        if self.tile and self.tile not in TILE_SIDES:
            raise FormatError(f"tile side {self.tile} is not a power of two from 128 to 8192")
        if self.axes != _NO_AXES and self.colour is not Colour.RGB:
            raise FormatError("only colours can be turned")
        if max(map(abs, self.axes)) > _AXES_LIMIT or (any(self.axes) and not any(self.axes[:3])):
            raise FormatError(f"turned axes {self.axes} are out of range")
        tile_width = min(self.tile or self.width, self.width)
        tile_height = min(self.tile or self.height, self.height)
        if tile_width * tile_height > MAX_TILE_PIXELS:
            raise LimitError(
                f"a tile of {tile_width}x{tile_height} pixels is above the limit of "
                f"{MAX_TILE_PIXELS}: the picture must be cut into smaller tiles"
            )

    @property
    def columns(self) -> int:
        """Tiles side by side."""
        return -(-self.width // self.tile) if self.tile else 1

    @property
    def rows(self) -> int:
        """Tiles one above the other."""
        return -(-self.height // self.tile) if self.tile else 1

    @property
    def tile_count(self) -> int:
        """Tiles in the file: rows * columns."""
        return self.rows * self.columns

    @property
    def boxes(self) -> Iterator[tuple[int, int, int, int]]:
        """(left, top, right, bottom) of every tile in file order, right and bottom exclusive."""
        side_x, side_y = self.tile or self.width, self.tile or self.height
        for top in range(0, self.height, side_y):
            for left in range(0, self.width, side_x):
                right, bottom = min(left + side_x, self.width), min(top + side_y, self.height)
                yield left, top, right, bottom


@dataclass(frozen=True)
class Tile:
    """One coded tile: 16-bit checksum of its symbols, and the range coder's bytes."""

    checksum: int
    payload: bytes


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


def is_aec(prefix: bytes) -> bool:
    """Whether a file that begins with these bytes (4 or more) is an .aec file of any version."""
    return bytes(prefix[:4]) == MAGIC


def write(file: AecFile) -> bytes:
    """The bytes of `file`. Equal input gives equal bytes. Raises FormatError, LimitError."""
    header = file.header
    if len(file.tiles) != header.tile_count:
        raise FormatError(f"{len(file.tiles)} tiles given, {header.tile_count} needed")
    if header.alpha != (file.alpha is not None):
        raise FormatError("the alpha chunk and the head do not agree")
    head = _pack_head(header)
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
        body = struct.pack("<H", tile.checksum) + tile.payload
        out.append(_pack_chunk(ChunkType.TILE if left else ChunkType.LAST_TILE, body, crc))
    return b"".join(out)


def read_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """The head of a file from its first HEAD_MAX bytes (or the whole file, if shorter).

    Raises FormatError, ChecksumError, UnsupportedError, or LimitError when the picture has
    more than `max_pixels` pixels.
    """
    return _unpack_head(data, max_pixels)[0]


def walk(data: bytes, max_pixels: int = MAX_PIXELS) -> list[Chunk]:
    """The chunks of a file in order, damaged ones marked; bodies are not interpreted.

    Raises what read_header raises, and FormatError where no further chunk can be framed.
    """
    _, offset = _unpack_head(data, max_pixels)
    return list(_chunks(data, offset))


def read(data: bytes, max_pixels: int = MAX_PIXELS, *, damaged_ok: bool = False) -> AecFile:
    """The whole file, every rule of the format checked.

    Raises FormatError, ChecksumError, UnsupportedError or LimitError. With `damaged_ok` a damaged
    or missing tile is None, damaged metadata is left out, a damaged alpha chunk gives alpha None,
    up to MAX_STRAY appended bytes are passed over; the head must be intact all the same.
    """
    header, offset = _unpack_head(data, max_pixels)
    count = header.tile_count
    if count * MIN_TILE_CHUNK > len(data) - offset and not damaged_ok:
        raise FormatError(f"file cut short: {count} tiles do not fit in {len(data)} bytes")
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
                tiles.append(Tile(int.from_bytes(body[:2], "little"), body[2:]) if body else None)
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


def _pack_head(header: Header) -> bytes:
    """The whole head."""
    tile_code = TILE_SIDES.index(header.tile) + 1 if header.tile else 0
    turned = header.axes != _NO_AXES
    flags = (_KIND_ALPHA if header.alpha else 0) | (_KIND_AXES if turned else 0)
    kind = header.colour | flags | tile_code << _TILE_SHIFT
    numbers = (header.width - 1, header.height - 1, header.quality)
    start = MAGIC + bytes([VERSION]) + header.model_id + bytes([kind])
    head = start + b"".join(map(pack_varint, numbers))
    if turned:
        head += struct.pack("<6b", *header.axes)
    return head + struct.pack("<H", zlib.crc32(head) & 0xFFFF)


def _unpack_head(data: bytes, max_pixels: int) -> tuple[Header, int]:
    """(header, offset of the first chunk)."""
    if not is_aec(data):
        raise FormatError("not an .aec file")
    if len(data) < 5:
        raise FormatError("file cut short inside the head")
    if data[4] != VERSION:
        raise UnsupportedError(f"format version {data[4]} is unknown to this release")
    if len(data) < 10:
        raise FormatError("file cut short inside the head")
    model_id, kind = bytes(data[5:9]), data[9]
    width, offset = unpack_varint(data, 10, 3, "head")
    height, offset = unpack_varint(data, offset, 3, "head")
    quality, offset = unpack_varint(data, offset, 2, "head")
    axes_at = offset
    if kind & _KIND_AXES:
        offset += 6
    if len(data) < offset + 2:
        raise FormatError("file cut short inside the head")
    if zlib.crc32(data[:offset]) & 0xFFFF != int.from_bytes(data[offset : offset + 2], "little"):
        raise ChecksumError("the head of the file is damaged")
    colour, tile_code = kind & _KIND_COLOUR, kind >> _TILE_SHIFT
    if colour > Colour.RGB or tile_code > len(TILE_SIDES):
        raise UnsupportedError(f"picture kind 0x{kind:02x} is unknown to this release")
    if (width + 1) * (height + 1) > max_pixels:
        raise LimitError(f"{width + 1}x{height + 1} is above the limit of {max_pixels} pixels")
    tile = TILE_SIDES[tile_code - 1] if tile_code else 0
    alpha = bool(kind & _KIND_ALPHA)
    axes = _NO_AXES
    if kind & _KIND_AXES:
        axes = struct.unpack_from("<6b", data, axes_at)
        if axes == _NO_AXES:
            raise FormatError("the head turns the colours by nothing")
    sides = width + 1, height + 1
    header = Header(model_id, Colour(colour), alpha, *sides, quality, tile, axes)
    return header, offset + 2


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
