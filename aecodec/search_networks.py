"""What a gradient search asks of a model, in PyTorch: networks, tables and pixels with gradients.

Values are those of the exact path and of the released synthesis; only the gradients of rounding
are made up (straight through, that is, those of the identity). Arrays of one step have the
layout of `aecodec.prior.ExactNetworks.prior`: (4,M/4,h/2 * w/2), quarter by quarter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from aecodec.cost import Cost
from aecodec.entropy import ESCAPE_BITS, PRECISION
from aecodec.prior import (
    ACTIVATION_MAX,
    ACTIVATION_MIN,
    GAIN_SHIFT,
    INVERSE_SHIFT,
    MEAN_UNITS,
    STEP_PHASES,
    UNITS,
    Z_LIMIT,
    interpolate,
)
from aecodec.quantise import DEEPEST, STEP_WORTH
from aecodec.search_filter import SearchFilter
from aecodec.tile import LATENT
from aecodec.torch_networks import TorchNetworks
from aecodec.window import Window

Tensor = Any  # torch.Tensor, which is not imported here

BLOCK = 800  # pixels a side for which the gradients of the synthesis are held at once


class StraightThrough:
    """PyTorch, but rounding passes gradients on."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self.round, self.floor = (_passing(torch, function) for function in ("round", "floor"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)


def _passing(torch: Any, name: str) -> Any:
    """A function of PyTorch with the gradient of the identity."""

    class Passing(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:
            return getattr(torch, name)(x)

        @staticmethod
        def backward(context: Any, slope: Tensor) -> Tensor:
            return slope

    return Passing.apply


class SearchNetworks(TorchNetworks):
    """The networks of a model folder with gradients.

    `TorchNetworks` rounds with its PyTorch alone, so it is given another one, and a filter that
    knows its gradient.
    """

    _eight_bits = SearchFilter

    def __init__(self, folder: Any, vectors: Any, device: str) -> None:
        super().__init__(folder, vectors, device, exact_dtype="float32", convolution=True)
        self.torch = self._torch = StraightThrough(self._torch)

    def common(self, z: Tensor, vector: Tensor) -> Tensor:
        """h_s of integers z (1,Z,h/4,w/4) plus the quality's vector: (1,W,h,w)."""
        a = self._graph_hyper_synthesis(z * UNITS)[0] + vector
        return a.clamp(ACTIVATION_MIN, ACTIVATION_MAX)

    def parameters(self, step: int, context: Tensor, common: Tensor) -> list[Tensor]:
        """Raw means and raw scale indices of a step's elements."""
        return self._graph_prior(step, context, common)

    def pixels(self, y_hat: Tensor, quality: int) -> Tensor:
        """x_hat (1,3,16h,16w), rounded to levels, of y_hat (1,M,h,w) in natural units."""
        given = self._synthesis_vectors(quality)
        vectors = {name: self.tensor(row) for name, row in given.items()}
        return self._x_hat(self._band(quality), y_hat, **vectors)

    def tensor(self, array: npt.NDArray[Any], dtype: str = "float32") -> Tensor:
        """An array on the device."""
        kind = getattr(self.torch, dtype)
        return self.torch.from_numpy(np.ascontiguousarray(array)).to(self.device, kind)


def gather(torch: Any, array: Tensor, step: int) -> Tensor:
    """A step's elements of (1,M,h,w)."""
    return torch.stack([part.flatten(1) for part in _parts(array, step)])


def scatter(array: Tensor, step: int, values: Tensor) -> None:
    """Put a step's elements where `gather` takes them from."""
    for part, value in zip(_parts(array, step), values, strict=True):
        part.copy_(value.reshape(part.shape))


def _parts(array: Tensor, step: int) -> Iterator[Tensor]:
    for quarter, phase in enumerate(STEP_PHASES[step]):
        yield array[0, quarter::4, phase // 2 :: 2, phase % 2 :: 2]


class Tables:
    """A model's frozen tables at one quality, and what is chosen by them."""

    def __init__(self, networks: SearchNetworks, cost: Cost) -> None:
        self._torch = torch = networks.torch
        tables, quality = cost.model.prior, cost.quality

        def rows(row: npt.NDArray[Any], dtype: str = "float32") -> Tensor:
            return networks.tensor(row.reshape(-1, 4).T[..., None], dtype)

        # Integers as in `aecodec.prior`; float64 holds their products exactly.
        self.gain = rows(interpolate(tables.gain, quality) / 2.0**GAIN_SHIFT, "float64")
        inverse = interpolate(tables.inverse, quality) * (MEAN_UNITS / 2.0**INVERSE_SHIFT)
        self.inverse = rows(inverse, "float64")
        self.shift = rows(interpolate(tables.shift, quality))
        self.coded = rows(tables.luma if cost.grey else np.ones_like(tables.luma))
        self.vector = networks.tensor(interpolate(tables.vector, quality)[None, :, None, None])
        self.levels = tables.levels
        self._dead_zone = rows(STEP_WORTH / cost.per_step)
        self._shifts = networks.tensor(cost.model.shifts)
        self._bits = networks.tensor(_bit_table(cost))
        self._z_bits = networks.tensor(_z_bit_table(cost))
        self._z_values = torch.arange(-Z_LIMIT, Z_LIMIT + 1, device=networks.device)

    def quantise(self, residual: Tensor, level: Tensor) -> Tensor:
        """`aecodec.quantise.quantise` at full strength; level as from `level`."""
        size = residual.abs()
        k = self._torch.round(size)
        shift = self._shifts[level, k.clamp_max(DEEPEST).long()] * self._dead_zone
        k = k - (size - (k - 0.5) < shift.clamp_max(0.5)).to(k.dtype)
        return self._torch.copysign(k, residual) * (level > 0)

    def level(self, index: Tensor) -> Tensor:
        """The scale table of a (continuous) scale index."""
        return (index + 0.5).floor().clamp(0, self.levels - 1).long()

    def bits(self, symbols: Tensor, level: Tensor, moved: Tensor, index: Tensor) -> Tensor:
        """Bits of a step's symbols, to be differentiated by `moved` and by the scale index.

        moved: what is added to each residual, 0 in value.
        """
        table, top = self._bits, self._bits.shape[1] - 1
        k = symbols.abs().clamp_max(top).long()
        farther, nearer = table[level, (k + 1).clamp_max(top)], table[level, (k - 1).clamp_min(0)]
        by_residual = (farther - nearer) / 2 * symbols.sign()
        up, down = (level + 1).clamp_max(self.levels - 1), (level - 1).clamp_min(0)
        by_index = (table[up, k] - table[down, k]) / (up - down)
        bits = table[level, k] + by_residual * moved + by_index * (index - index.detach())
        return (bits * self.coded).sum()

    def nearest_z(self, z: Tensor, worth: float) -> Tensor:
        """Integers near to z (1,Z,h,w) and cheap; worth: bits per squared error of one."""
        distance = z[..., None] - self._z_values
        cost = self._z_bits[None, :, None, None, :] + worth * distance**2
        return (cost.argmin(-1) - Z_LIMIT).to(z.dtype)

    def bits_of_z(self, z: Tensor) -> float:
        """Bits of integers z (1,Z,h,w)."""
        flat = (z.detach()[0].flatten(1) + Z_LIMIT).long()
        return float(self._z_bits.gather(1, flat).sum())


def _bit_table(cost: Cost) -> npt.NDArray[np.float64]:
    """(levels, K): bits of |symbol| = 0, 1, ... by every scale table, escapes included."""
    coder = cost.model.y_tables
    count = max(coder.radius(table) for table in range(len(coder.sizes))) + 2
    bits = np.zeros((len(coder.sizes), count))
    for table in range(int(coder.skip_first), len(bits)):
        counts = coder.frequencies[coder.starts[table] : coder.starts[table + 1]]
        own = PRECISION - np.log2(counts.astype(np.float64))
        radius = coder.radius(table)
        bits[table, : radius + 1] = own[radius : 2 * radius + 1]
        bits[table, radius + 1 :] = own[-1] + ESCAPE_BITS
    return bits


def _z_bit_table(cost: Cost) -> npt.NDArray[np.float64]:
    """(Z, 2 * Z_LIMIT + 1): bits of every value of every hyper-latent channel."""
    model = cost.model
    starts = model.z_tables.starts[model.z_index((model.z_channels, 1, 1), cost.quality)]
    counts = model.z_tables.frequencies[starts[:, None] + np.arange(2 * Z_LIMIT + 1)]
    return np.asarray(PRECISION - np.log2(counts.astype(np.float64)), np.float64)


class Distortion:
    """The squared error of a window and its gradient, a block of pixels at a time."""

    def __init__(self, networks: SearchNetworks, cost: Cost, window: Window) -> None:
        self._networks, self._cost, self._window = networks, cost, window
        self._around = networks.tensor(window.u * cost.natural_per_u)[None]
        self._pixels = networks.tensor(window.pixels.transpose(2, 0, 1))[None]
        step = cost.model.networks.inverse_gain(cost.quality)
        self._step = networks.tensor(step)[None]

    def __call__(self, y_hat: Tensor) -> tuple[float, Tensor]:
        """Sum of squared errors for y_hat (1,M,h,w) in steps, and its gradient (1,M,h,w)."""
        window, natural = self._window, self._around.clone()
        natural[..., window.rows, window.columns] = y_hat * self._step
        slope, total = natural.new_zeros(natural.shape), 0.0
        for rows in _blocks(window.height):
            for columns in _blocks(window.width):
                total += self._block(natural, slope, rows, columns)
        return total, slope[..., window.rows, window.columns] * self._step

    def _block(self, natural: Tensor, slope: Tensor, rows: slice, columns: slice) -> float:
        """Add a block's gradient; its error."""
        (top, high), (left, wide) = (self._reach(part, axis) for part, axis in
                                     ((rows, 2), (columns, 3)))  # fmt: skip
        part = natural[..., high, wide].detach().requires_grad_()
        x_hat = self._networks.pixels(part, self._cost.quality)
        x_hat = x_hat[
            ...,
            rows.start - top : rows.stop - top,
            columns.start - left : columns.stop - left,
        ]
        if self._cost.grey:  # as the decoder shows it: the mean, rounded half up
            x_hat = self._networks.torch.floor(x_hat.mean(1, keepdim=True) + 0.5)
        error = (x_hat - self._pixels[..., rows, columns]).square().sum()
        error.backward()
        slope[..., high, wide] += part.grad
        return float(error.detach())

    def _reach(self, part: slice, axis: int) -> tuple[int, slice]:
        """The latents that a range of pixels depends on, and the first of their pixels."""
        halo = self._cost.model.halo
        first = max(0, (part.start - halo) // LATENT)
        last = min(self._around.shape[axis], -(-(part.stop + halo) // LATENT))
        return first * LATENT, slice(first, last)


def _blocks(length: int) -> Iterator[slice]:
    """A length cut into equal parts of at most BLOCK, whole latents each but the last."""
    count = -(-length // BLOCK)
    side = -(-length // (count * LATENT)) * LATENT
    for start in range(0, length, side):
        yield slice(start, min(length, start + side))
