"""Pictures: files, bytes, PIL images and arrays <-> Picture. The module that knows Pillow.

What becomes of the kinds of picture that Pillow reads:

    L, LA, RGB, RGBA      as they are; alpha is kept exactly
    1 (two levels)        grey, levels 0 and 255
    P, PA (palette)       RGB, or RGBA when the palette carries transparency
    L, RGB with one transparent level or colour: LA, RGBA
    CMYK, YCbCr, LAB, HSV, 16 and 32 bits per sample, float, animations   refused

EXIF orientation is applied to the pixels and its tag set to 1, so that no viewer turns the
picture twice. Colour profiles are kept and never applied.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, TiffImagePlugin, TiffTags, UnidentifiedImageError

from aecodec import files
from aecodec.errors import AecError, LimitError, PictureError
from aecodec.metadata import (
    EXIF_PREFIX,
    exif_of,
    orientation_of,
    raw_block,
    upright_exif,
    upright_xmp,
)

Array = npt.NDArray[np.uint8]
Source = str | os.PathLike[str] | bytes | IO[bytes]

MAX_SIDE = 65535  # pixels, as in the file format
MAX_PIXELS = 2**28  # what is read unless the caller says otherwise

_MODES = {"1": "L", "P": "RGB", "PA": "RGBA", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA"}
_REFUSED = {
    "CMYK": "CMYK pictures are not handled; convert to RGB first",
    "I": "pictures of more than 8 bits per sample are not handled; convert to 8 bits first",
    "F": "floating-point pictures are not handled; convert to 8 bits first",
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_XMP = 700
# Decoded pixels should not be degraded again by defaults meant for small files.
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 3},  # half the time of Pillow's 6, bytes within some per cent
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
_ALPHA_FORMATS = {"PNG", "WEBP", "TIFF", "AVIF", "JPEG2000", "TGA", "QOI"}
_STRIP = 512  # rows handed over at a time
_limit_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels with what belongs to them.

    pixels: uint8, (height, width) for grey or (height, width, 3) for RGB.
    alpha: uint8 (height, width), 255 = opaque, or None. Colour is not premultiplied.
    icc, exif, xmp: raw blocks as PNG and WebP store them (EXIF begins with II or MM), or None.
    """

    pixels: Array
    alpha: Array | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    @property
    def width(self) -> int:
        """Pixels per row."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])


def load(source: Source, max_pixels: int = MAX_PIXELS, *, first_frame: bool = False) -> Picture:
    """Read a picture file: a path, its bytes, or an open binary file.

    `first_frame` takes the first picture of an animation instead of refusing it. Raises
    FileError, PictureError or LimitError, with the name of the file in the message.
    """
    if isinstance(source, bytes):
        name, stream = "", io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        name, stream = f"{os.fspath(source)}: ", io.BytesIO(files.read_bytes(source))
    else:
        name, stream = "", io.BytesIO(source.read())
    try:
        with _open(stream) as image:
            return from_image(image, max_pixels, first_frame=first_frame)
    except AecError as error:
        raise type(error)(f"{name}{error}") from error


def from_image(
    image: Image.Image, max_pixels: int = MAX_PIXELS, *, first_frame: bool = False
) -> Picture:
    """The picture in a PIL image, which is left as it was. Raises PictureError or LimitError."""
    _check_size(*image.size, max_pixels)
    _check_kind(image, first_frame)
    try:
        _load(image)
        info, orientation = image.info, orientation_of(image)
        exif, mode = exif_of(image), _target_mode(image)
        if image.mode == "1":
            image = image.convert("L")
        if image.mode != mode:
            image = image.convert(mode)
        if orientation in _TURNS:
            image = image.transpose(_TURNS[orientation])
        pixels = _pixels(image)
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise PictureError(f"cannot be decoded: {error}") from error
    alpha = None
    if mode in ("LA", "RGBA"):
        alpha = np.ascontiguousarray(pixels[..., -1])
        pixels = np.ascontiguousarray(pixels[..., 0] if mode == "LA" else pixels[..., :3])
    xmp = raw_block(info.get("xmp") or info.get("XML:com.adobe.xmp"))
    icc = raw_block(info.get("icc_profile"))
    return Picture(pixels, alpha, icc, upright_exif(exif), upright_xmp(xmp))


def _pixels(image: Image.Image) -> Array:
    """(H,W) or (H,W,C) of a loaded image; in strips, for Pillow copies what it gives twice."""
    planes = len(image.getbands())
    shape = (image.height, image.width) if planes == 1 else (image.height, image.width, planes)
    pixels = np.empty(shape, np.uint8)
    for top in range(0, image.height, _STRIP):
        bottom = min(image.height, top + _STRIP)
        pixels[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return pixels


def from_array(array: npt.NDArray[Any]) -> Picture:
    """Picture of a uint8 array: HxW grey, HxWx1 grey, HxWx2 grey and alpha, HxWx3, HxWx4.

    The array is copied. Raises PictureError or LimitError.
    """
    if array.dtype != np.uint8:
        raise PictureError(f"arrays of {array.dtype} are not handled, only uint8")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise PictureError(f"an array of shape {array.shape} is not a grey or RGB picture")
    _check_size(array.shape[1], array.shape[0], MAX_SIDE**2)
    planes = array.shape[2]
    pixels = np.array(array[..., 0] if planes < 3 else array[..., :3], order="C")
    alpha = np.array(array[..., -1], order="C") if planes in (2, 4) else None
    return Picture(pixels, alpha)


def to_image(picture: Picture) -> Image.Image:
    """PIL image of mode L, LA, RGB or RGBA; metadata in `info` under Pillow's own names."""
    pixels = picture.pixels
    if picture.alpha is not None:
        pixels = np.dstack((pixels, picture.alpha))
    image = Image.fromarray(pixels)
    image.info.update(_metadata(picture))
    return image


def save(
    picture: Picture,
    target: str | os.PathLike[str] | IO[bytes],
    format: str | None = None,
    *,
    overwrite: bool = True,
    **options: Any,
) -> None:
    """Write a picture to a path (complete or not at all) or to an open binary file.

    `format` is Pillow's name of it; by default the suffix of the path decides. `options` go to
    Pillow. Metadata is written where the format can hold it. Raises PictureError or FileError.
    """
    path = os.fspath(target) if isinstance(target, str | os.PathLike) else ""
    try:
        data = _encode(picture, format or _format_of(path), options)
    except PictureError as error:
        raise PictureError(f"{path}: {error}" if path else str(error)) from error
    if isinstance(target, str | os.PathLike):
        files.write_atomically(target, data, overwrite=overwrite)
    else:
        target.write(data)


@contextlib.contextmanager
def _pillows_limit_off() -> Iterator[None]:
    # The limit is a global of Pillow: two threads must not save and restore it crosswise.
    with _limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _load(image: Image.Image) -> None:
    """Decode in place; the TIFF plugin looks at Pillow's limit once more here."""
    if image.width * image.height > (Image.MAX_IMAGE_PIXELS or MAX_SIDE**2):
        with _pillows_limit_off():
            image.load()
    else:
        image.load()  # any number of threads at once


def _open(stream: IO[bytes]) -> Image.Image:
    """Image.open without Pillow's own limit on pixels: ours is checked right after it."""
    try:
        with _pillows_limit_off():
            return Image.open(stream)
    except UnidentifiedImageError as error:
        raise PictureError("not a picture that Pillow can read") from error
    except Exception as error:  # Pillow's parsers raise almost anything on damaged files
        raise PictureError(f"cannot be read: {error}") from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise LimitError(f"{width}x{height}: sides must be 1 to {MAX_SIDE} pixels")
    if width * height > max_pixels:
        raise LimitError(f"{width}x{height} is above the limit of {max_pixels} pixels")


def _check_kind(image: Image.Image, first_frame: bool) -> None:
    """Refuse what would lose more than the codec is asked to lose."""
    # The other pictures in a phone's multi-picture JPEG are previews, not frames.
    frames = 1 if image.format == "MPO" or first_frame else _frames(image)
    if frames > 1:
        what = f"animations and multi-page files are not handled ({frames} frames)"
        raise PictureError(f"{what}; --first-frame takes the first")
    if image.mode not in _MODES:
        other = f"pictures of mode {image.mode} are not handled; convert to RGB first"
        raise PictureError(_REFUSED.get(image.mode.split(";")[0], other))
    # Pillow cuts 16-bit colour down without a word; the decoder's arguments give it away.
    if any(_is_deep(tile[3]) for tile in getattr(image, "tile", ())):
        raise PictureError(_REFUSED["I"])


def _frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception as error:  # counting reads on into the file
        raise PictureError(f"cannot be read: {error}") from error


def _is_deep(arguments: object) -> bool:
    """Whether the arguments of a Pillow decoder speak of more than 8 bits per sample."""
    parts = arguments if isinstance(arguments, tuple) else (arguments,)
    raw_mode = str(parts[0]) if parts else ""
    if raw_mode in ("L", "RGB") and len(parts) == 2:  # PPM: the highest level
        return isinstance(parts[1], int) and parts[1] > 255
    return re.search(r";(16|32)", raw_mode) is not None


def _target_mode(image: Image.Image) -> str:
    """The mode, L LA RGB or RGBA, that holds the picture without loss."""
    mode = _MODES[image.mode]
    if image.has_transparency_data:
        return {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    return mode


def _metadata(picture: Picture) -> dict[str, bytes]:
    """Metadata under the names that Pillow gives it, in `info` and in save options."""
    exif = picture.exif and EXIF_PREFIX + picture.exif
    found = {"icc_profile": picture.icc, "exif": exif, "xmp": picture.xmp}
    return {key: value for key, value in found.items() if value}


def _format_of(name: str) -> str:
    """Pillow's name of the format that a file name asks for."""
    suffix = os.path.splitext(name)[1].lower()
    Image.preinit()  # PNG, JPEG, PPM, BMP, GIF; loading every plugin takes 20 ms more
    format = Image.EXTENSION.get(suffix) or Image.registered_extensions().get(suffix)
    if format in (None, "AEC"):  # the latter is there once the plugin is imported
        raise PictureError(f"no picture format is known by the suffix {suffix!r}")
    return format


def _encode(picture: Picture, format: str, options: dict[str, Any]) -> bytes:
    """The bytes of a picture file. Raises PictureError."""
    Image.preinit()
    format = {"JPG": "JPEG", "TIF": "TIFF"}.get(format.upper(), format.upper())
    if format not in Image.SAVE:
        Image.init()
    if format not in Image.SAVE:
        raise PictureError(f"Pillow cannot write {format} files")
    if picture.alpha is not None and format not in _ALPHA_FORMATS:
        raise PictureError(f"{format} files cannot hold alpha; PNG, WebP and TIFF can")
    settings, image = _settings(picture, format) | options, to_image(picture)
    try:
        return _saved(image, format, settings)
    except Exception as error:
        if len(image.getbands()) < 3:  # some formats know no grey: three equal planes do as well
            with contextlib.suppress(Exception):
                colour = "RGB" if picture.alpha is None else "RGBA"
                return _saved(image.convert(colour), format, settings)
        raise PictureError(f"cannot be written as {format}: {error}") from error


def _saved(image: Image.Image, format: str, settings: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **settings)
    return out.getvalue()


def _settings(picture: Picture, format: str) -> dict[str, Any]:
    """Save options of a format, metadata in the way its plugin wants it."""
    settings = _SAVE_OPTIONS.get(format, {}) | _metadata(picture)
    if picture.xmp and format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", picture.xmp)
        settings["pnginfo"] = text
    elif picture.xmp and format == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags.tagtype[_TIFF_XMP] = TiffTags.BYTE
        tags[_TIFF_XMP] = picture.xmp
        settings["tiffinfo"] = tags
    return settings
