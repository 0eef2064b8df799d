"""One tile: latent <-> symbols <-> payload. Encoding and decoding mirror each other."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aecodec import signs
from aecodec.container import Tile
from aecodec.entropy import SYMBOL_LIMIT, Groups, SymbolDecoder, SymbolEncoder
from aecodec.errors import SymbolError
from aecodec.model import Model
from aecodec.prior import MEAN_UNITS, Z_LIMIT, Index, Opening
from aecodec.quantise import STEP_WORTH, STRENGTH, quantise

Float = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

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


@dataclass(frozen=True)
class Plan:
    """What the encoder means to code in a tile; its symbols follow from it.

    u: the target (M,h,w), h and w multiples of 4. opening: of its hyper-latents. strength: of
    the dead zone (see `aecodec.quantise`), for all channels or one for each (M,). worth: bits that
    a squared quantisation step is worth, likewise.
    """

    u: Float
    opening: Opening
    strength: float | Float
    worth: float | Float = STEP_WORTH


class Step(NamedTuple):
    """Symbols (n,) of a coding step in coding order, their tables, and these grouped."""

    symbols: Int32
    tables: Index
    groups: Groups


@dataclass(frozen=True)
class Coded:
    """The symbols of a tile: z, and those of each step."""

    z: Int32
    steps: tuple[Step, ...]
    y_hat: Float  # (M,h,w) in natural units: what the synthesis of every decoder sees

    def bits(self, model: Model, quality: int) -> float:
        """Ideal code length."""
        total = model.hyper.bits(self.z, quality)
        return total + sum(signs.bits(*step, model) for step in self.steps)


def hyper_latents(model: Model, u: Float, quality: int) -> Int32:
    """z (Z,h/4,w/4) of u (M,h,w), as h_a gives it, rounded."""
    z = np.nan_to_num(np.rint(model.networks.hyper_analysis(u, quality)))
    return np.clip(z, -Z_LIMIT, Z_LIMIT).astype(np.int32)


def code_tile(model: Model, plan: Plan, quality: int, grey: bool) -> Coded:
    """Choose the symbols of a tile: each step's means follow from the symbols before it."""
    prior, steps = model.at(quality, grey), []
    walk, y = prior.walk, plan.u * prior.steps_per_u().astype(np.float32)[:, None, None]
    if not np.isfinite(y).all():  # a latent that overflowed
        y = np.nan_to_num(y)

    def exchange(step: int, mean: npt.NDArray[np.int64], index: Index) -> Int32:
        r = mean.astype(np.float32)
        r *= -1 / MEAN_UNITS
        r += walk.gather(step, y)
        np.clip(r, -SYMBOL_LIMIT, SYMBOL_LIMIT, out=r)
        weights = signs.Weights(*(
            walk.per_element(step, part, *y.shape[1:]) if isinstance(part, np.ndarray) else part
            for part in (plan.strength, plan.worth)
        ))  # fmt: skip
        symbols = quantise(r, index, model.shifts, weights.strength)
        groups = Groups(index, model.y_tables)
        symbols = signs.hidden(symbols, r, index, groups, weights, model)
        steps.append(Step(symbols, index, groups))
        return symbols

    y_hat = prior.run(plan.opening, exchange)
    return Coded(plan.opening.z, tuple(steps), _natural(model, y_hat, quality))


def write_tile(model: Model, coded: Coded, quality: int) -> Tile:
    """The bytes of a tile."""
    coder, checksum = SymbolEncoder(), Checksum()
    model.hyper.write(coder, coded.z, quality)
    checksum.add(coded.z.ravel())
    for symbols, _, groups in coded.steps:
        signs.write(coder, symbols, groups, model)
        checksum.add(symbols)
    return Tile(checksum.value, coder.finish())


def encode_tile(model: Model, u: Float, quality: int, grey: bool) -> Tile:
    """Code one tile's latent u (M,h,w) by the dead zone alone, by one strength for all channels."""
    z = hyper_latents(model, u, quality)
    plan = Plan(u, model.at(quality, grey).opening(z), STRENGTH)
    return write_tile(model, code_tile(model, plan, quality, grey), quality)


def decode_tile(model: Model, tile: Tile, size: tuple[int, int], quality: int, grey: bool) -> Float:
    """y_hat (M,h,w) in natural units of one tile; size is its padded (height, width) in pixels.

    Raises SymbolError when the symbols are not those that were written.
    """
    coder, checksum = SymbolDecoder(tile.payload), Checksum()
    prior = model.at(quality, grey)
    z = model.hyper.read(coder, (size[0] // ALIGN, size[1] // ALIGN), quality)
    checksum.add(z.ravel())

    def exchange(step: int, mean: npt.NDArray[np.int64], index: Index
                 ) -> npt.NDArray[np.int32]:  # fmt: skip
        symbols = signs.read(coder, index, model)
        checksum.add(symbols)
        return symbols

    y_hat = prior.run(prior.opening(z), exchange)
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
