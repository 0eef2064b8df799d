"""The filter's last layer, tuned to one picture: what a file changes in its weights.

    decoded picture -> what the last layer saw, what is missing in the picture -> moments
    moments of all tiles -> changes that save more than they cost -> a chunk of the file

The last layer is linear, so the changes that leave the smallest squared error follow from second
moments of what it saw. They are whole numbers of a power of two of the weights' own 8-bit steps,
chosen one by one by what each saves and costs, and coded with the frozen tables of the symbols:
a few hundred bytes. Decoders compute the same layer with other numbers.

docs/format.md has the layout of the chunk.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from aecodec.cost import Cost
from aecodec.entropy import SymbolDecoder, SymbolEncoder
from aecodec.errors import FormatError
from aecodec.model import Model
from aecodec.tile import LATENT, Coded
from aecodec.window import Window

Matrix = npt.NDArray[np.float64]
Weight = npt.NDArray[np.int8]
Ints = npt.NDArray[np.int32]

LEVEL = 64.0  # levels in the unit of what the layer adds
ERROR_UNITS = 16  # of these, whole, are a level of what is missing
WEIGHT_LIMIT = 63  # greatest magnitude of a weight: sums of two products stay within 16 bits
MOST_SHIFT = 5  # of changes, to the left
CLASSES = 9  # of weights that share a table: three colours times corner, edge, centre of 3x3
STRIP = 32  # rows that moments are added for at a time
MOST = 2**19  # positions of the layer that are looked at: of a large picture every so many strips
STEP_BITS = 26 / 3  # what one squared step of a change should be worth (see `aecodec.quantise`)
FIRST_ZEROS = 0.97  # share of changes that are taken to be 0 before any is known
PASSES = 6
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


class Sample:
    """Sums over the positions of a picture: of products of what the layer saw with each other, seen
    (9 C, 9 C), and with what is missing, missing (9 C, 12).

    They are whole numbers below 2^53, so exact whatever the order of tiles and threads.
    """

    def __init__(self, layer: Layer, pixels: int) -> None:
        """pixels: of the whole picture."""
        self.layer = layer
        self._every = -(-pixels // 4 // MOST)  # of so many strips of STRIP rows one is looked at
        self.seen: Matrix | float = 0.0
        self.missing: Matrix | float = 0.0
        self._lock = threading.Lock()

    def add(
        self, active: npt.NDArray[np.uint8], error: npt.NDArray[np.float32], rows: slice,
        columns: slice,
    ) -> None:  # fmt: skip
        """Add what is in the given rows and columns of active (C,h,w) and error (12,h,w)."""
        near = np.pad(active, ((0, 0), (1, 1), (1, 1)), constant_values=self.layer.zero)
        for top in range(rows.start, rows.stop, STRIP * self._every):
            bottom = min(rows.stop, top + STRIP)
            taps = [
                near[:, top + i : bottom + i, columns.start + j : columns.stop + j]
                for i in range(3)
                for j in range(3)
            ]
            seen = np.stack(taps, 1).reshape(9 * len(active), -1).astype(np.float64)
            seen -= self.layer.zero
            lost = error[:, top:bottom, columns].reshape(len(error), -1).astype(np.float64)
            products = seen @ seen.T, seen @ lost.T
            with self._lock:
                self.seen = self.seen + self._every * products[0]
                self.missing = self.missing + self._every * products[1]


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


def look(model: Model, window: Window, coded: Coded, quality: int, sample: Sample) -> None:
    """Add what the last layer sees in a tile, and what is missing there; quality in hundredths."""
    y_hat = Cost(model, quality, grey=False).surrounded(window, coded.y_hat)
    seen, missing = model.networks.fitting(y_hat, window.pixels, quality)
    half = LATENT // 2
    rows, columns = (
        slice(part.start * half, min(part.stop * half, length // 2))
        for part, length in ((window.rows, window.height), (window.columns, window.width))
    )
    sample.add(seen, missing, rows, columns)


def chunk(model: Model, quality: int, sample: Sample) -> bytes | None:
    """The body of the chunk of a picture, if there is a change that saves anything."""
    if not np.any(sample.seen):  # a picture of one row or column has no position of its own
        return None
    return fitted(model, sample, Cost(model, quality, grey=False).weight)


def fitted(model: Model, sample: Sample, worth: float) -> bytes | None:
    """The chunk of the change that saves most; None if none saves anything.

    worth: bits that one unit of squared error of one sample is worth.
    """
    solver = _Solver(model, sample, worth)
    for _ in range(PASSES):
        solver.settle()
    body = solver.change.packed(model)
    return body if solver.gain() > 8 * (len(body) + FRAME) else None


class _Solver:
    """Changes, one weight after the other in all rows at once, by what is saved in bits."""

    def __init__(self, model: Model, sample: Sample, worth: float) -> None:
        layer, self._shape = sample.layer, sample.layer.weight.shape
        self._bits = model.y_tables.by_size
        gram = np.asarray(sample.seen) * worth
        each = np.median(gram.diagonal()) * np.median(layer.unit) ** 2  # bits a squared step costs
        step = np.log2(STEP_BITS / max(each, 1e-9)) / 2
        self._shift = int(np.clip(np.rint(step), 0, MOST_SHIFT))
        self._gram, self._unit = gram, layer.unit * 2.0**self._shift
        self._left = np.asarray(sample.missing) * (worth / ERROR_UNITS)  # (9 C, 12)
        self._first = self._left.copy()
        whole = layer.weight.reshape(len(layer.unit), -1).T.astype(np.float64)
        self._low = np.ceil((-WEIGHT_LIMIT - whole) / 2**self._shift)
        self._high = np.floor((WEIGHT_LIMIT - whole) / 2**self._shift)
        self._class = _classes(self._shape).reshape(len(layer.unit), -1).T
        zeros = 2.0 ** -self._bits[:, 0].astype(np.float64)
        zeros[0] = 0
        self._tables = np.full(CLASSES, np.argmin(np.abs(zeros - FIRST_ZEROS)))
        self._amount = np.zeros(self._left.shape)

    def settle(self) -> None:
        """Choose every change anew, then the tables that suit the changes best."""
        rows = np.arange(len(self._unit))
        for i, (low, high) in enumerate(zip(self._low, self._high, strict=True)):
            own = self._gram[i, i] * self._unit**2
            now = self._amount[i]
            slope = self._left[i] * self._unit + own * now
            best = np.clip(np.rint(slope / np.maximum(own, 1e-9)), low, high)
            tries = np.stack([np.zeros_like(best), best - np.sign(best), best])
            tries[:, self._tables[self._class[i]] == 0] = 0
            cost = own * tries**2 - 2 * slope * tries + self._price(self._class[i], tries)
            chosen = tries[cost.argmin(0), rows]
            if (chosen != now).any():
                self._left -= self._gram[:, i, None] * ((chosen - now) * self._unit)
                self._amount[i] = chosen
        sizes = np.minimum(np.abs(self._amount), self._bits.shape[1] - 1).astype(np.intp)
        for kind in range(CLASSES):
            members = sizes[self._class == kind]
            total = self._bits[:, members].sum(1)
            total[0] = 0 if not members.any() else np.inf
            self._tables[kind] = int(total.argmin())

    def _price(self, kinds: npt.NDArray[Any], amounts: Matrix) -> Matrix:
        size = np.minimum(np.abs(amounts), self._bits.shape[1] - 1).astype(np.intp)
        price: Matrix = self._bits[self._tables[kinds], size].astype(np.float64)
        return price

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
