"""Importing this module teaches Pillow to open and save .aec files.

    import aecodec.pillow_plugin
    image = Image.open("photo.aec")             # reads the head and the metadata, no pixels
    image.save("small.aec", quality=40)

Opening fills `info` with icc_profile, exif and xmp (those the file has), quality and model (100 and
"" of an exact picture).
Saving takes quality (0..100, default 75), effort (1..9), model (as for `aecodec.encode`),
icc_profile, exif and xmp; metadata that is not given is taken from `info`, and None or b"" leaves
it out. As everywhere in aecodec the EXIF orientation is applied to the pixels and its tag set to
1. Pillow's own limit on pixels applies.
"""

from __future__ import annotations

from typing import IO, Any

from PIL import Image, ImageFile

from aecodec import container
from aecodec.errors import AecError

FORMAT = "AEC"
SUFFIX = ".aec"
MIME = "image/x-aec"
_NO_LIMIT = container.MAX_SIDE**2  # Pillow checks the size after opening and before any pixel
_EXIF_PREFIX = b"Exif\0\0"
_METADATA = ("icc_profile", "exif", "xmp")


class AecImageFile(ImageFile.ImageFile):
    """An .aec file: head and metadata when opened, pixels when they are asked for."""

    format = FORMAT
    format_description = "aecodec learned image"
    _coded = False  # whether the pixels are still to be decoded (never in an unpickled image)

    def _open(self) -> None:
        assert self.fp is not None
        try:
            head = self.fp.read(container.HEAD_MAX)
            header = container.read_header(head, _NO_LIMIT)
            # Metadata may be damaged or pixels missing: that is for load() to say.
            file = container.read(head + self.fp.read(), _NO_LIMIT, damaged_ok=True)
        except AecError as error:
            raise SyntaxError(str(error)) from error  # tells Pillow to try the next plugin
        self._size = header.width, header.height
        self._mode = ("L" if header.colour is container.Colour.GREY else "RGB") + (
            "A" if header.alpha else ""
        )
        exif = file.exif and _EXIF_PREFIX + file.exif
        found = {"icc_profile": file.icc, "exif": exif, "xmp": file.xmp}
        self.info.update({key: value for key, value in found.items() if value})
        self.info["quality"] = header.quality / 100
        self.info["model"] = header.model
        self._coded = True

    def load(self) -> Any:
        """Decode, once. Raises OSError for damaged files and missing models.

        PIL.ImageFile.LOAD_TRUNCATED_IMAGES makes damaged parts grey instead.
        """
        if self._coded:
            data = self._bytes()
            try:
                self.im = _decode(data)
            except AecError as error:
                raise OSError(str(error)) from error
            self._coded = False
            if self._exclusive_fp and self.fp:
                self.fp.close()
            self.fp = None
        return super().load()

    def verify(self) -> None:
        """Check every checksum without decoding. Raises OSError."""
        try:
            container.read(self._bytes(), _NO_LIMIT)
        except AecError as error:
            raise OSError(str(error)) from error
        super().verify()

    def _bytes(self) -> bytes:
        if self.fp is None:
            raise ValueError("Operation on closed image")
        self.fp.seek(0)
        return self.fp.read()


def _decode(data: bytes) -> Any:
    from aecodec import codec, picture

    if ImageFile.LOAD_TRUNCATED_IMAGES:
        decoded, _ = codec.decode_damaged(data, max_pixels=_NO_LIMIT)
    else:
        decoded = codec.decode_file(data, max_pixels=_NO_LIMIT)
    return picture.to_image(decoded).im


def _accept(prefix: bytes) -> bool | str:
    """Whether a file begins like ours; a text when it does but cannot be read."""
    if container.is_aec(prefix) and len(prefix) > 4 and prefix[4] != container.VERSION:
        return f"version {prefix[4]} of the .aec format is unknown to this release of aecodec"
    return container.is_aec(prefix)


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Pillow's hook. Raises AecError, a ValueError, for modes that are not handled."""
    from aecodec import codec, picture

    options: dict[str, Any] = image.encoderinfo
    view = image.copy()  # the caller's image keeps the metadata it has
    for key in _METADATA:
        value = options.get(key, view.info.get(key))
        value = value.tobytes() if isinstance(value, Image.Exif) else value
        view.info.pop(key, None)
        if value:
            view.info[key] = value
    quality = options.get("quality", 75)
    effort, model = options.get("effort"), options.get("model") or ""
    source = picture.from_image(view)
    fp.write(codec.encode_picture(source, float(quality), effort=effort, model=model))


def register() -> None:
    """Register with Pillow; importing the module does it."""
    Image.register_open(FORMAT, AecImageFile, _accept)
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, SUFFIX)
    Image.register_mime(FORMAT, MIME)


register()
