"""The head of an .aec file: bytes <-> what they say of the picture. docs/format.md is normative.

    magic 4 | version 1 | model id 4 | kind 1 | width-1 v | height-1 v | quality v |
        axes 6, if the kind says so | check 2                  (v = canonical LEB128 varint)

Only the standard library is used, and a few bytes are enough: see HEAD_MAX.
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
FINEST = 10000  # hundredths: the quality 100
NO_MODEL = bytes(4)  # the model id of exact pictures
TILE_SIDES = tuple(64 << code for code in range(1, 8))  # 128 to 8192 pixels

_KIND_COLOUR, _KIND_EXACT, _KIND_ALPHA, _KIND_AXES, _KIND_LAYERED = 0x01, 0x02, 0x04, 0x08, 0x80
_TILE_SHIFT, _TILE_CODES = 4, 0x07


Axes = tuple[int, int, int, int, int, int]  # rotation, shift
NO_AXES: Axes = (0, 0, 0, 0, 0, 0)
_AXES_LIMIT = 127


class Colour(IntEnum):
    """Colour planes of the coded picture; the value is the lowest bit of the kind byte."""

    GREY = 0
    RGB = 1


@dataclass(frozen=True)
class Header:
    """What the head of a file says. Sizes in pixels, quality in hundredths, tile 0 = one tile.

    axes: how the colours were turned before they were coded (`aecodec.axes`), -127 to 127 each.
    exact: tiles hold the samples themselves (`aecodec.exact`); quality is 100 and no model needed.
    layered: tiles may hold some samples themselves (`aecodec.layer`).
    Raises LimitError or FormatError when the fields cannot stand in a file.
    """

    model_id: bytes
    colour: Colour
    alpha: bool
    width: int
    height: int
    quality: int
    tile: int = 0
    axes: Axes = NO_AXES
    exact: bool = False
    layered: bool = False

    def __post_init__(self) -> None:
        if len(self.model_id) != 4:
            raise FormatError(f"the model id has {len(self.model_id)} bytes instead of 4")
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise LimitError(f"{self.width}x{self.height}: sides must be 1 to {MAX_SIDE} pixels")
        if not 0 <= self.quality <= FINEST:
            raise FormatError(f"quality {self.quality / 100:g} is not between 0 and 100")
        if self.tile and self.tile not in TILE_SIDES:
            raise FormatError(f"tile side {self.tile} is not a power of two from 128 to 8192")
        if self.axes != NO_AXES and self.colour is not Colour.RGB:
            raise FormatError("only colours can be turned")
        if max(map(abs, self.axes)) > _AXES_LIMIT or (any(self.axes) and not any(self.axes[:3])):
            raise FormatError(f"turned axes {self.axes} are out of range")
        if self.exact and (any(self.model_id) or self.quality != FINEST or any(self.axes)):
            raise FormatError("an exact picture has quality 100, no model and no turned colours")
        if self.exact and self.layered:
            raise FormatError("an exact picture needs no layer")
        tile_width = min(self.tile or self.width, self.width)
        tile_height = min(self.tile or self.height, self.height)
        if tile_width * tile_height > MAX_TILE_PIXELS:
            raise LimitError(
                f"a tile of {tile_width}x{tile_height} pixels is above the limit of "
                f"{MAX_TILE_PIXELS}: the picture must be cut into smaller tiles"
            )

    @property
    def model(self) -> str:
        """The model's id as people read it; "" of an exact picture, which needs none."""
        return "" if self.exact else self.model_id.hex()

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


def vp8l_start(width: int, height: int, alpha: bool = False) -> bytes:
    """How a VP8L stream of a size, up to 16384 a side, begins (docs/format.md)."""
    return b"/" + struct.pack("<I", (width - 1) | (height - 1) << 14 | alpha << 28)


def is_vp8l(stream: bytes, width: int, height: int, alpha: bool = False) -> bool:
    """Whether a stream begins as VP8L of this size does; alpha: it may have that."""
    starts = {vp8l_start(width, height, hint) for hint in (False, alpha)}
    return max(width, height) <= 2**14 and stream[:5] in starts


def is_aec(prefix: bytes) -> bool:
    """Whether a file that begins with these bytes (4 or more) is an .aec file of any version."""
    return bytes(prefix[:4]) == MAGIC


def read_header(data: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """The head of a file from its first HEAD_MAX bytes (or the whole file, if shorter).

    Raises FormatError, ChecksumError, UnsupportedError, or LimitError when the picture has
    more than `max_pixels` pixels.
    """
    return unpack_head(data, max_pixels)[0]


def pack_head(header: Header) -> bytes:
    """The whole head."""
    tile_code = TILE_SIDES.index(header.tile) + 1 if header.tile else 0
    turned = header.axes != NO_AXES
    flags = (_KIND_ALPHA if header.alpha else 0) | (_KIND_AXES if turned else 0)
    flags |= (_KIND_EXACT if header.exact else 0) | (_KIND_LAYERED if header.layered else 0)
    kind = header.colour | flags | tile_code << _TILE_SHIFT
    numbers = (header.width - 1, header.height - 1, header.quality)
    start = MAGIC + bytes([VERSION]) + header.model_id + bytes([kind])
    head = start + b"".join(map(pack_varint, numbers))
    if turned:
        head += struct.pack("<6b", *header.axes)
    return head + struct.pack("<H", zlib.crc32(head) & 0xFFFF)


def unpack_head(data: bytes, max_pixels: int) -> tuple[Header, int]:
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
    colour, tile_code = kind & _KIND_COLOUR, kind >> _TILE_SHIFT & _TILE_CODES
    if (width + 1) * (height + 1) > max_pixels:
        raise LimitError(f"{width + 1}x{height + 1} is above the limit of {max_pixels} pixels")
    tile = TILE_SIDES[tile_code - 1] if tile_code else 0
    alpha, exact, layered = (bool(kind & bit) for bit in (_KIND_ALPHA, _KIND_EXACT, _KIND_LAYERED))
    axes = NO_AXES
    if kind & _KIND_AXES:
        axes = struct.unpack_from("<6b", data, axes_at)
        if axes == NO_AXES:
            raise FormatError("the head turns the colours by nothing")
    sides = width + 1, height + 1
    header = Header(model_id, Colour(colour), alpha, *sides, quality, tile, axes, exact, layered)
    return header, offset + 2
