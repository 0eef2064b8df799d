"""Quantised latents as features: what the decoder's synthesis sees, without the pixels.

picture -> encode -> read_latents -> y_hat
.aec bytes -> container -> tiles -> z, four steps of (prior, decode) -> y_hat (no synthesis)
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from aecodec import api, codec, container
from aecodec.container import Colour, Tile
from aecodec.decoding import pixel_decoder
from aecodec.model import open_model
from aecodec.tile import ALIGN, LATENT, decode_tile
from aecodec.transforms import default_threads

if TYPE_CHECKING:
    from PIL import Image

Float = npt.NDArray[np.float32]


def latents(
    image: Image.Image | npt.NDArray[np.uint8],
    quality: float = 75.0,
    *,
    threads: int = 0,
    model: str = "",
) -> Float:
    """y_hat (M, h, w) of a PIL image or a uint8 array (HxW, HxWx1..4), float32.

    What a decoder of the file of `encode(image, quality)` would have, were its colours never turned
    (`info(data).axes`): so latents of different pictures compare. Alpha and metadata play no part.
    quality, threads, model: as for `encode`. Raises AecError.
    """
    options: dict[str, Any] = {"metadata": "none", "threads": threads, "model": model}
    source = api.picture_of(image)
    data = codec.encode_picture(source, quality, turns=False, exactly=False, **options)
    return read_latents(data, max_pixels=container.MAX_SIDE**2, threads=threads)


def read_latents(data: bytes, *, max_pixels: int = container.MAX_PIXELS, threads: int = 0) -> Float:
    """y_hat (M, h, w), float32, of the bytes of an .aec file; no pixels are made.

    h = ceil(height / 64) * 4 and w = ceil(width / 64) * 4: one column of M features for each
    16x16 pixels of the picture, padded to the right and to the bottom to multiples of 64. The
    tiles of a large picture are put together. M is 384 in the released model.

    Values are in natural units, the quantisation step of the file's quality taken out, so they
    compare between qualities; between models (`info(data).model`) they do not, and chroma not
    between pictures whose colours were turned otherwise (`info(data).axes`). A grey picture uses
    the luma channels, and the others are 0. A file that is exact has none of its own, and one that
    is in parts has none of these: they give what `latents` does of their picture, with the default
    model at quality 75. It takes about as
    long as decoding without the synthesis, and 4 bytes times M / 256 of memory per pixel. Raises
    AecError.
    """
    file = container.read(data, max_pixels)
    header = file.header
    threads = threads or default_threads()
    if header.exact or header.layered:
        return latents(pixel_decoder(file, threads)(None), threads=threads)
    model = open_model(header.model_id.hex(), threads)
    shape = (_latents(header.height), _latents(header.width))
    y_hat = np.zeros((len(model.prior.luma), *shape), np.float32)

    def place(tile: Tile | None, box: tuple[int, int, int, int]) -> None:
        assert tile is not None  # container.read refuses files that lack one
        left, top = box[0] // LATENT, box[1] // LATENT
        h, w = _latents(box[3] - box[1]), _latents(box[2] - box[0])
        size = (h * LATENT, w * LATENT)
        grey = header.colour is Colour.GREY
        part = decode_tile(model, tile, size, header.quality, grey)
        y_hat[:, top : top + h, left : left + w] = part

    with ThreadPoolExecutor(min(threads, header.tile_count)) as pool:
        for _ in pool.map(place, file.tiles, header.boxes):
            pass
    return y_hat


def _latents(length: int) -> int:
    """Latents along a side of so many pixels."""
    return -(-length // ALIGN) * (ALIGN // LATENT)
