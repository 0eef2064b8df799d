"""VP8L, the lossless format of WebP (RFC 9649, section 3), bare: samples <-> stream.

The coder is libwebp, through Pillow, which wants a RIFF container around it.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image, features

from aecodec.container import NOT_EXACT
from aecodec.errors import FormatError, UnsupportedError
from aecodec.head import is_vp8l

Pixels = npt.NDArray[np.uint8]

MAX_SIDE = 16383  # pixels that libwebp takes

# (quality, method) in libwebp's terms. More effort takes long, and may even make it larger; where
# there is time for both, the smaller is 1 to 8 % smaller.
_QUICK, _SLOW = (75, 2), (100, 4)


@functools.cache
def available() -> bool:
    """Whether this Pillow has libwebp, as all that are installed from wheels have."""
    return bool(features.check("webp"))


def checksum(samples: Pixels) -> int:
    """Low half of the CRC-32 of samples, row by row: what the format keeps beside a stream."""
    return zlib.crc32(np.ascontiguousarray(samples).data) & 0xFFFF


def coloured(samples: Pixels) -> Pixels:
    """Grey samples (h,w) as three equal planes (h,w,3); others as they are."""
    return samples if samples.ndim == 3 else samples[..., None].repeat(3, 2)


def pack(samples: Pixels, slowly: bool = False) -> bytes:
    """The stream of samples (h,w), (h,w,3), or (h,w,4) with alpha; sides at most MAX_SIDE."""
    samples = coloured(samples)
    image = Image.fromarray(np.ascontiguousarray(samples))
    streams = []
    for quality, method in (_QUICK, _SLOW) if slowly else (_QUICK,):
        out = io.BytesIO()
        image.save(out, "WEBP", lossless=True, exact=True, quality=quality, method=method)
        data = out.getvalue()
        (size,) = struct.unpack_from("<I", data, 16)
        if data[12:16] != b"VP8L":
            raise UnsupportedError("this libwebp does not write what an exact picture needs")
        streams.append(data[20 : 20 + size])
    return min(streams, key=len)


def unpack(stream: bytes, height: int, width: int, alpha: bool = True) -> Pixels:
    """The samples (h,w,4) of a stream; alpha: whether it may have that, 255 where it has none.

    Raises FormatError for a stream of another size or kind, or one that cannot be decoded,
    UnsupportedError where Pillow lacks libwebp.
    """
    if not is_vp8l(stream, width, height, alpha):
        raise FormatError(NOT_EXACT)
    if not available():
        raise UnsupportedError("exact pictures need a Pillow with WebP")
    body = b"WEBPVP8L" + struct.pack("<I", len(stream)) + stream + bytes(len(stream) % 2)
    try:
        with Image.open(io.BytesIO(b"RIFF" + struct.pack("<I", len(body)) + body),
                        formats=("WEBP",)) as image:  # fmt: skip
            samples = np.asarray(image.convert("RGBA"))
    except (OSError, ValueError, SyntaxError) as error:
        raise FormatError(f"a VP8L stream cannot be decoded: {error}") from error
    if samples.shape != (height, width, 4):
        raise FormatError(NOT_EXACT)
    return samples
