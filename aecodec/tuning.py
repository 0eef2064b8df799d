"""The filter's last layer, tuned to one picture: what a file changes in its weights.

    moments of all tiles (`aecodec.moments`) -> changes that save more than they cost
    -> a chunk of the file -> weights of the layer

The last layer is linear, so the changes that leave the smallest squared error follow from second
moments of what it sees. They are whole numbers of a power of two of the weights' own 8-bit steps,
chosen one by one by what each saves and costs, and coded with the frozen tables of the symbols:
a few hundred bytes. Decoders compute the same layer with other numbers.

docs/format.md has the layout of the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from aecodec.cost import Cost
from aecodec.entropy import SymbolDecoder, SymbolEncoder
from aecodec.errors import FormatError
from aecodec.model import Model
from aecodec.moments import Sample

Matrix = npt.NDArray[np.float64]
Weight = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int32]

LEVEL = 64.0  # levels in the unit of what the layer adds
WEIGHT_LIMIT = 63  # greatest magnitude of a weight: sums of two products stay within 16 bits
MOST_SHIFT = 5  # of changes, to the left
CLASSES = 9  # of weights that share a table: three colours times corner, edge, centre of 3x3
STEP_BITS = 26 / 3  # what one squared step of a change should be worth (see `aecodec.quantise`)
FIRST_ZEROS = 0.97  # share of changes that are taken to be 0 before any is known
# Weights of each row that are changed at most before tables are chosen anew, time after time.
TURNS = (16, 24, 40, 120)
NEVER = 1e9  # bits of what a table cannot code
LEAST_GAIN = 1e-6  # bits: below it is what arithmetic leaves
FRAME = 7  # bytes of a chunk besides its body: type, length, CRC-32


@dataclass(frozen=True)
class Layer:
    """The last layer of one band of quality.

    weight (12,C,3,3): whole numbers. zero: the activation that stands for 0. unit (12,): levels
    that one step of each row's weights adds for one step of activation.
    """

    weight: Weight
    zero: int
    unit: Matrix

    @staticmethod
    def of(model: Model, band: int) -> Layer:
        """That of a model."""
        own, tensor = f"filter.{band}", model.weights.tensor
        weight, steps = tensor(f"{own}.last.weight"), tensor(f"{own}.last.weight_scale")
        scale, zero = tensor(f"{own}.points")[-2].astype(np.float64)
        return Layer(weight, int(zero), LEVEL * scale * steps.astype(np.float64))


@dataclass(frozen=True)
class Change:
    """What a picture changes: weights grow by `amount` (12,C,3,3) times 2^shift."""

    shift: int
    tables: tuple[int, ...]  # of the y tables, that of each class
    amount: Ints

    def packed(self, model: Model) -> bytes:
        """The body of the chunk."""
        coder = SymbolEncoder()
        index = np.array(self.tables, np.uint8)[_classes(self.amount.shape)].ravel()
        coder.put(self.amount.ravel(), index, model.y_tables)
        return bytes([self.shift, *self.tables]) + coder.finish()

    def applied(self, layer: Layer) -> Weight:
        """The weights of the changed layer."""
        changed = layer.weight.astype(np.int64) + (self.amount.astype(np.int64) << self.shift)
        tuned: Weight = np.clip(changed, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
        return tuned


def unpacked(body: bytes, model: Model, shape: tuple[int, ...]) -> Change:
    """The change in the body of a chunk, for weights of a shape. Raises FormatError."""
    shift, tables = body[0], tuple(body[1 : 1 + CLASSES])
    if shift > MOST_SHIFT or max(tables) >= len(model.y_tables.sizes):
        raise FormatError("the FILTER chunk is not one that the encoder could have written")
    index = np.array(tables, np.uint8)[_classes(shape)].ravel()
    amount = SymbolDecoder(body[1 + CLASSES :]).get(index, model.y_tables)
    return Change(shift, tables, amount.reshape(shape))


def tuned_model(model: Model, quality: int, body: bytes | None) -> Model:
    """The model with the last layer as a file's chunk changes it. Raises FormatError."""
    if body is None:
        return model
    if not model.networks.can_tune:
        raise FormatError("the FILTER chunk is for another kind of model")
    layer = Layer.of(model, model.networks.band(quality))
    change = unpacked(body, model, layer.weight.shape)
    return replace(model, networks=model.networks.tuned(change.applied(layer)))


def sample_of(
    model: Model, quality: int, turn: Matrix, pixels: int, most: int, threads: int
) -> Sample:
    """Where to add what a picture of so many pixels is tuned by; see `aecodec.moments`."""
    layer = Layer.of(model, model.networks.band(quality))
    return Sample(layer.weight.shape[1], layer.zero, turn, pixels, most, threads)


def chunk(model: Model, quality: int, sample: Sample) -> bytes | None:
    """The body of the chunk of a picture, if there is a change that saves anything."""
    seen = sample.seen
    if not seen.any():  # a picture of one row or column has no position of its own
        return None
    layer = Layer.of(model, model.networks.band(quality))
    worth = Cost(model, quality, grey=False).weight
    return fitted(model, layer, seen, sample.missing, worth)


def fitted(model: Model, layer: Layer, seen: Matrix, missing: Matrix, worth: float) -> bytes | None:
    """The chunk of the change that saves most; None if none saves anything.

    seen, missing: see `aecodec.moments.Sample`. worth: bits that one unit of squared error of one
    sample is worth.
    """
    solver = _Solver(model, layer, seen * worth, missing * worth)
    for turns in TURNS:
        solver.descend(turns)
    body = solver.change.packed(model)
    return body if solver.gain() > 8 * (len(body) + FRAME) else None


class _Solver:
    """Changes, one weight of each row at a time: the one that saves most bits by its new value.

    seen (9 C, 9 C), missing (9 C, 12): moments, in bits for a squared level.
    """

    def __init__(self, model: Model, layer: Layer, seen: Matrix, missing: Matrix) -> None:
        self._shape = layer.weight.shape
        each = np.median(seen.diagonal()) * np.median(layer.unit) ** 2  # bits a squared step costs
        step = np.log2(STEP_BITS / max(each, 1e-9)) / 2
        self._shift = int(np.clip(np.rint(step), 0, MOST_SHIFT))
        self._seen, self._unit = seen, layer.unit * 2.0**self._shift
        self._own = np.maximum(seen.diagonal()[:, None] * self._unit**2, 1e-9)
        self._first, self._left = missing, missing.copy()
        whole = layer.weight.reshape(len(layer.unit), -1).T.astype(np.float64)
        self._low = np.ceil((-WEIGHT_LIMIT - whole) / 2**self._shift)
        self._high = np.floor((WEIGHT_LIMIT - whole) / 2**self._shift)
        self._class = _classes(self._shape).reshape(len(layer.unit), -1).T
        self._bits = model.y_tables.by_size.astype(np.float64)
        self._bits[0, 1:] = NEVER  # the certain zero
        zeros = 2.0 ** -self._bits[:, 0]
        zeros[0] = 0
        self._tables = np.full(CLASSES, np.argmin(np.abs(zeros - FIRST_ZEROS)))
        self._amount = np.zeros(missing.shape)

    def descend(self, turns: int) -> None:
        """Change so many weights of every row at most, then take the tables that suit them best."""
        price = self._bits[self._tables]
        free = price[:, 0][self._class]
        # Rounded so that one more or less would not pay, with bits as from 1 to 2.
        one_more = (price[:, 2] - price[:, 1])[self._class]
        half = 0.5 - np.clip(one_more / (2 * self._own), 0, 0.5)
        per_step, now = self._unit / self._own, self._amount
        dear = self._dear(price, now) - free  # what amounts cost beyond 0, in bits
        rows = np.arange(len(self._unit))
        for _ in range(turns):
            best = self._left * per_step + now
            new = np.copysign(np.floor(np.abs(best) + half), best)
            np.clip(new, self._low, self._high, out=new)
            dearer = self._dear(price, new) - free
            best *= 2
            cost = (new - best) * new * self._own + dearer
            saved = (now - best) * now * self._own + dear - np.minimum(cost, 0)
            at = saved.argmax(0)
            row = rows[saved[at, rows] > LEAST_GAIN]
            if not len(row):
                break
            at = at[row]
            pays = cost[at, row] < 0
            to, before = np.where(pays, new[at, row], 0), now[at, row]
            now[at, row], dear[at, row] = to, np.where(pays, dearer[at, row], 0)
            self._left[:, row] -= self._seen[at].T * ((to - before) * self._unit[row])
        self._choose_tables()

    def _dear(self, price: Matrix, amounts: Matrix) -> Matrix:
        """Bits of amounts, by prices (classes, sizes)."""
        bits: Matrix = price[self._class, self._sizes(amounts)]
        return bits

    def _sizes(self, amounts: Matrix) -> npt.NDArray[np.intp]:
        """Magnitudes of amounts, those beyond a table as one."""
        return np.minimum(np.abs(amounts), self._bits.shape[1] - 1).astype(np.intp)

    def _choose_tables(self) -> None:
        sizes = self._sizes(self._amount)
        for kind in range(CLASSES):
            self._tables[kind] = int(self._bits[:, sizes[self._class == kind]].sum(1).argmin())

    @property
    def change(self) -> Change:
        """What has been chosen."""
        amount = self._amount.T.reshape(self._shape).astype(np.int32)
        return Change(self._shift, tuple(int(table) for table in self._tables), amount)

    def gain(self) -> float:
        """Bits that the squared error which it takes off is worth."""
        return float(((self._first + self._left) * (self._amount * self._unit)).sum())


def _classes(shape: tuple[int, ...]) -> npt.NDArray[np.intp]:
    """The class of every weight of (12,C,3,3): colour times 3, plus 0 corner, 1 edge, 2 centre."""
    colour = np.arange(shape[0]) % 3
    middle = np.array([0, 1, 0])
    place = middle[:, None] + middle
    every: npt.NDArray[np.intp] = np.broadcast_to(
        colour[:, None, None, None] * 3 + place, shape
    ).astype(np.intp)
    return every
