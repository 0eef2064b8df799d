"""EXIF and XMP blocks as bytes: found in what Pillow read, marked as upright once the pixels are.

Blocks are changed in place and not written anew: maker notes and thumbnails hold offsets that
only survive where every other byte stays where it was.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION = 0x0112  # EXIF tag
EXIF_PREFIX = b"Exif\0\0"  # belongs to JPEG's marker, not to the EXIF block


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


def orientation_of(image: Image) -> int:
    """EXIF orientation 1 to 8 of a loaded picture (TIFF is turned by Pillow and says 1)."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged EXIF block is no reason to refuse the pixels
        return 1
    return value if isinstance(value, int) else 1


def exif_of(image: Image) -> bytes | None:
    """The EXIF block of a file that has one (TIFF tags describe the TIFF file: not taken)."""
    raw = image.info.get("exif")
    if not raw and "Raw profile type exif" in image.info:
        raw = image.getexif().tobytes()
    return raw_block(raw.removeprefix(EXIF_PREFIX) if isinstance(raw, bytes) else None)


def raw_block(value: object) -> bytes | None:
    """Metadata as bytes; nothing in place of an empty or foreign value."""
    if isinstance(value, str):
        value = value.encode()
    return value if isinstance(value, bytes) and value else None
