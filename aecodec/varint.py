"""Whole numbers in as few bytes as they need: LEB128, in its one canonical form."""

from __future__ import annotations

from aecodec.errors import FormatError


def pack_varint(value: int) -> bytes:
    """7 bits per byte, lowest first; bit 7 is set on every byte but the last."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def unpack_varint(data: bytes, offset: int, max_bytes: int, where: str) -> tuple[int, int]:
    """(value, offset after it) of a number of at most `max_bytes` bytes in a part of a file.

    Raises FormatError when it is cut short, too long or longer than needed.
    """
    value = 0
    for index in range(max_bytes):
        if offset + index >= len(data):
            raise FormatError(f"file cut short inside a {where}")
        byte = data[offset + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if not byte and index:
                raise FormatError(f"number written with too many bytes in a {where}")
            return value, offset + index + 1
    raise FormatError(f"number too long in a {where}")
