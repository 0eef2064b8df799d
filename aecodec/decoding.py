"""The pipeline of the decoder; every stage is in a module of its own.

container -> payload -> z -> four steps (prior, decode) -> y_hat -> g_s -> pixels, layers over them
container -> payload -> samples                                     of exact pictures
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from aecodec import alpha, container, exact
from aecodec.axes import turned_model
from aecodec.container import AecFile, Colour
from aecodec.damage import Damage, show_damage, survey
from aecodec.errors import FormatError, SymbolError
from aecodec.layer import layers_of
from aecodec.model import Model, open_model
from aecodec.paint import Pixels, gathered, painted_rows
from aecodec.picture import Picture
from aecodec.tile import LATENT, decode_tile
from aecodec.transforms import default_threads
from aecodec.tuning import tuned_model
from aecodec.window import Box, padded

Float = npt.NDArray[np.float32]


def model_of(model: Model, file: AecFile) -> Model:
    """The model as a file changes it: colours turned, the filter tuned. Raises FormatError."""
    return tuned_model(turned_model(model, file.header.axes), file.header.quality, file.filter)


def decode_file(
    data: bytes, *, max_pixels: int = container.MAX_PIXELS, threads: int = 0
) -> Picture:
    """The picture in the bytes of an .aec file.

    Raises FormatError, ChecksumError, UnsupportedError, LimitError, ModelError, SymbolError.
    """
    file = container.read(data, max_pixels)
    header, decode = file.header, pixel_decoder(file, threads or default_threads())
    plane = None
    if file.alpha is not None:
        plane = alpha.unpack_alpha(file.alpha, header.height, header.width)
    return Picture(decode(None), plane, file.icc, file.exif, file.xmp)


def decode_damaged(
    data: bytes, *, max_pixels: int = container.MAX_PIXELS, threads: int = 0
) -> tuple[Picture, Damage]:
    """Whatever can be had from a damaged file, and what could not; a whole one gives no damage.

    The head must be intact. Damaged tiles are grey and opaque; within the halo of one the
    picture is less exact. Raises what decode_file raises for the head and for the model.
    """
    file = container.read(data, max_pixels, damaged_ok=True)
    header, decode = file.header, pixel_decoder(file, threads or default_threads())
    plane = None
    if file.alpha is not None:
        with contextlib.suppress(FormatError, SymbolError):
            plane = alpha.unpack_alpha(file.alpha, header.height, header.width)
    alpha_lost = header.alpha and plane is None
    if alpha_lost:
        plane = np.full((header.height, header.width), 255, np.uint8)
    damaged: list[Box] = []
    pixels = decode(damaged)
    damaged.sort(key=lambda box: (box[1], box[0]))  # threads finish in any order
    picture = Picture(pixels, plane, file.icc, file.exif, file.xmp)
    show_damage(picture, damaged)
    return picture, survey(data, header, damaged, alpha_lost)


def pixel_decoder(file: AecFile, threads: int) -> Callable[[list[Box] | None], Pixels]:
    """What makes the pixels of a file: of all its tiles. Opens the model that it needs.

    With a list instead of None, tiles that cannot be decoded are noted there and taken as zeros.
    """
    if file.header.exact:
        return functools.partial(exact.pixels_of, file, threads)
    model = open_model(file.header.model, threads)
    return lambda damaged: paint_tiles(model_of(model, file), file, threads, damaged)


def paint_tiles(
    model: Model, file: AecFile, threads: int, damaged: list[Box] | None = None
) -> Pixels:
    """The same of quantised latents, with the model as the file changes it."""
    header = file.header
    grey, boxes = header.colour is Colour.GREY, list(header.boxes)

    def decode(index: int) -> Float:
        tile, box = file.tiles[index], boxes[index]
        size = (padded(box[3]) - box[1], padded(box[2]) - box[0])
        try:
            if tile is None:
                raise FormatError("a tile is missing")
            return decode_tile(model, tile, size, header.quality, grey)
        except (FormatError, SymbolError):
            if damaged is None:
                raise
            damaged.append(box)
            # Zeros are the mean of all pictures: the mildest thing for a neighbour's halo.
            latents = (len(model.prior.luma), size[0] // LATENT, size[1] // LATENT)
            return np.zeros(latents, np.float32)

    layers = layers_of(file, damaged)
    return gathered(header, painted_rows(model, header, decode, threads, layers))
