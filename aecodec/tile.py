"""One tile: latent <-> symbols <-> payload. Encoding and decoding mirror each other."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from aecodec.container import Tile
from aecodec.entropy import SYMBOL_LIMIT, SymbolDecoder, SymbolEncoder
from aecodec.errors import SymbolError
from aecodec.model import Model
from aecodec.prior import MEAN_UNITS, Z_LIMIT, Index
from aecodec.quantise import quantise

Float = npt.NDArray[np.float32]

ALIGN = 64  # pixels per hyper-latent: what is coded is padded to multiples of this
LATENT = 16  # pixels per latent


class Checksum:
    """Low half of the CRC-32 of a tile's symbols in coding order, as 16-bit little-endian."""

    def __init__(self) -> None:
        self._crc = 0

    @property
    def value(self) -> int:
        """The 16 bits that the file carries."""
        return self._crc & 0xFFFF

    def add(self, symbols: npt.NDArray[np.integer[Any]]) -> None:
        """Take in the next symbols (n,)."""
        self._crc = zlib.crc32(symbols.astype("<i2").tobytes(), self._crc)


def encode_tile(model: Model, u: Float, quality: int, grey: bool, *, verify: bool = False) -> Tile:
    """Code one tile's latent u (M,h,w), h and w multiples of 4.

    With `verify` it is decoded at once. Raises SymbolError when that gives another y_hat.
    """
    coder, checksum = SymbolEncoder(), Checksum()
    prior = model.at(quality, grey)
    z_float = np.rint(model.networks.hyper_analysis(u, quality))
    z = np.clip(np.nan_to_num(z_float), -Z_LIMIT, Z_LIMIT).astype(np.int32)
    coder.put(z.ravel(), model.z_index(z.shape, quality), model.z_tables)
    checksum.add(z.ravel())
    walk, y = prior.walk, u * prior.steps_per_u().astype(np.float32)[:, None, None]

    def exchange(step: int, mean: npt.NDArray[np.int64], index: Index
                 ) -> npt.NDArray[np.int32]:  # fmt: skip
        r = np.nan_to_num(walk.gather(step, y) - mean.astype(np.float32) / MEAN_UNITS)
        r = np.clip(r, -SYMBOL_LIMIT, SYMBOL_LIMIT)
        symbols = quantise(r, index, model.rounding)
        coder.put(symbols, index, model.y_tables)
        checksum.add(symbols)
        return symbols

    y_hat = prior.run(z, exchange)
    tile = Tile(checksum.value, coder.finish())
    if verify:
        size = (u.shape[1] * LATENT, u.shape[2] * LATENT)
        decoded = decode_tile(model, tile, size, quality, grey)
        if not np.array_equal(decoded, _natural(model, y_hat, quality)):
            raise SymbolError("verification failed: the tile does not decode to what was coded")
    return tile


def decode_tile(model: Model, tile: Tile, size: tuple[int, int], quality: int, grey: bool) -> Float:
    """y_hat (M,h,w) in natural units of one tile; size is its padded (height, width) in pixels.

    Raises SymbolError when the symbols are not those that were written.
    """
    coder, checksum = SymbolDecoder(tile.payload), Checksum()
    prior = model.at(quality, grey)
    shape = (model.z_channels, size[0] // ALIGN, size[1] // ALIGN)
    z = coder.get(model.z_index(shape, quality), model.z_tables)
    checksum.add(z)

    def exchange(step: int, mean: npt.NDArray[np.int64], index: Index
                 ) -> npt.NDArray[np.int32]:  # fmt: skip
        symbols = coder.get(index, model.y_tables)
        checksum.add(symbols)
        return symbols

    y_hat = prior.run(z.reshape(shape), exchange)
    if checksum.value != tile.checksum:
        raise SymbolError(
            "the decoded symbols do not match their checksum: this decoder is out of step "
            "with the encoder (a damaged model, or a defect worth reporting)"
        )
    return _natural(model, y_hat, quality)


def _natural(model: Model, y_hat: npt.NDArray[np.int32], quality: int) -> Float:
    """y_hat from 1/16 of a step to natural units."""
    step: Float = model.networks.inverse_gain(quality) / MEAN_UNITS
    return y_hat.astype(np.float32) * step
