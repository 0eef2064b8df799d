"""EXIF and XMP blocks as bytes: marking them as upright once the pixels are.

Blocks are changed in place and not written anew: maker notes and thumbnails hold offsets that
only survive where every other byte stays where it was.
"""

from __future__ import annotations

import re
import struct

ORIENTATION = 0x0112  # EXIF tag


def upright_exif(exif: bytes | None) -> bytes | None:
    """The block with orientation 1, every other byte as it was."""
    if exif is None or exif[:4] not in (b"II*\0", b"MM\0*"):
        return exif
    order = "<" if exif[:2] == b"II" else ">"
    block = bytearray(exif)
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", block, entry)
            if tag == ORIENTATION:
                # The value is left-justified in its four bytes: 1 byte, 2 bytes or 4.
                packed = struct.pack(order + {1: "B", 4: "I"}.get(kind, "H"), 1)
                block[entry + 8 : entry + 12] = packed.ljust(4, b"\0")
    except struct.error:
        return exif  # cut short: nobody can read an orientation out of it
    return bytes(block)


def upright_xmp(xmp: bytes | None) -> bytes | None:
    """The packet with orientation 1, every other byte as it was."""
    return xmp and re.sub(rb"(tiff:Orientation(?:=[\"']|>))[0-9]", rb"\g<1>1", xmp)
