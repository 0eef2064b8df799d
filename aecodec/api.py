"""The public functions; `import aecodec` gives them without importing this module at once."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aecodec import container, files, rate
from aecodec.errors import AecError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from aecodec.picture import Picture

PathLike = str | os.PathLike[str]
Metadata = Literal["all", "icc", "none"]


@dataclass(frozen=True)
class Info:
    """What an .aec file says of itself; no weights are needed to read it.

    mode: Pillow's name (L, LA, RGB, RGBA). exact: whether every sample is kept, which needs no
    model: model is empty then and quality 100. layered: whether parts of the picture are exact.
    bpp: bits per pixel of the whole file. tile: side in pixels, 0 for a single tile. axes: how
    colours were turned (docs/format.md), or zeros.
    chunks: (name, bytes of the body) in file order.
    """

    width: int
    height: int
    mode: str
    exact: bool
    layered: bool
    quality: float
    model: str
    version: int
    bytes: int
    bpp: float
    tile: int
    tiles: int
    axes: container.Axes
    chunks: tuple[tuple[str, int], ...]

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, fit for JSON."""
        return dataclasses.asdict(self)


def encode(
    image: Image.Image | npt.NDArray[np.uint8],
    quality: float = 75.0,
    *,
    effort: int | None = None,
    model: str = "",
    size: int | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
    ssimulacra2: float | None = None,
    metadata: Metadata = "all",
    threads: int = 0,
) -> bytes:
    """Compress a PIL image or a uint8 array (HxW, HxWx1..4) to the bytes of an .aec file.

    What repeats itself, as text and drawings do, is kept exactly where that takes no more bytes:
    the whole picture (`info(data).exact`), or parts of it (`info(data).layered`). Alpha is kept,
    colour where it is 0 is not.
    quality: 0..100, higher is better, continuous. In its place one of size (best quality in at
    most so many bytes), bpp (or bits per pixel), psnr (smallest file of so many dB) and ssimulacra2
    (or of this score; needs the package of that name). effort:
    1 (fast) to 9 (small), by default AECODEC_EFFORT, else 3. model: "default", or "small" for
    smaller files that take twice as long to decode, or an id; by default AECODEC_MODEL, else
    "default". metadata: which of ICC profile, EXIF and XMP to keep. threads: 0 for all cores.
    Raises AecError.
    """
    source = picture_of(image)
    target = rate.target_of(size, bpp, psnr, ssimulacra2)
    options: dict[str, Any] = {"effort": effort, "model": model, "metadata": metadata}
    return _coded(source, quality, target, threads=threads, **options)


def picture_of(image: Image.Image | npt.NDArray[np.uint8]) -> Picture:
    """The planes and metadata of a PIL image, or of an array. Raises AecError."""
    from PIL import Image

    from aecodec import picture

    return (
        picture.from_image(image) if isinstance(image, Image.Image) else picture.from_array(image)
    )


def _coded(source: Picture, quality: float, target: rate.Target | None, **options: Any) -> bytes:
    from aecodec import codec

    if target is None:
        return codec.encode_picture(source, quality, **options)
    return rate.meet(target, source, codec.Encoder(source, **options)).data


def decode(data: bytes, *, max_pixels: int = container.MAX_PIXELS, threads: int = 0) -> Image.Image:
    """The picture in the bytes of an .aec file, with its metadata in `info`. Raises AecError."""
    from aecodec import codec, picture

    return picture.to_image(codec.decode_file(data, max_pixels=max_pixels, threads=threads))


def info(data: bytes) -> Info:
    """Read the head and the chunk table of an .aec file. Raises AecError."""
    header = container.read_header(data)
    chunks = container.walk(data)
    mode = header.colour.name.replace("GREY", "L") + ("A" if header.alpha else "")
    return Info(
        width=header.width,
        height=header.height,
        mode=mode,
        exact=header.exact,
        layered=header.layered,
        quality=header.quality / 100,
        model=header.model,
        version=container.VERSION,
        bytes=len(data),
        bpp=len(data) * 8 / (header.width * header.height),
        tile=header.tile,
        tiles=header.tile_count,
        axes=header.axes,
        chunks=tuple((chunk.name, chunk.length) for chunk in chunks),
    )


def compress(
    source: PathLike,
    target: PathLike,
    quality: float = 75.0,
    *,
    effort: int | None = None,
    model: str = "",
    size: int | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
    ssimulacra2: float | None = None,
    metadata: Metadata = "all",
    overwrite: bool = True,
    threads: int = 0,
) -> None:
    """Compress a picture file to an .aec file, which appears only when it is complete.

    Options as for `encode`. Raises AecError, whose message names the file.
    """
    from aecodec import picture

    target_rate = rate.target_of(size, bpp, psnr, ssimulacra2)
    loaded = picture.load(source)
    options: dict[str, Any] = {"effort": effort, "model": model, "metadata": metadata}
    try:
        data = _coded(loaded, quality, target_rate, threads=threads, **options)
    except AecError as error:
        raise type(error)(f"{os.fspath(source)}: {error}") from error
    files.write_atomically(target, data, overwrite=overwrite)


def decompress(
    source: PathLike,
    target: PathLike,
    *,
    overwrite: bool = True,
    max_pixels: int = container.MAX_PIXELS,
    threads: int = 0,
) -> None:
    """Write the picture of an .aec file in the format that the target's suffix names.

    Raises AecError, whose message names the file.
    """
    from aecodec import codec, picture

    data = files.read_bytes(source)
    try:
        decoded = codec.decode_file(data, max_pixels=max_pixels, threads=threads)
    except AecError as error:
        raise type(error)(f"{os.fspath(source)}: {error}") from error
    picture.save(decoded, target, overwrite=overwrite)
