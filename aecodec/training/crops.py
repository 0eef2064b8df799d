"""Training crops cut on the device that trains: a GPU would wait for a CPU to cut them.

As `aecodec.training.data.sample_batch`, but for all crops of a batch at once, and with synthetic
tiles that are made beforehand. All random numbers come from the generator that is given.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aecodec.training.data import TILE, Pixels
from aecodec.training.synthetic import synthetic_patch

SYNTHETIC = 256  # tiles


class DeviceCrops:
    """Photographic and synthetic tiles (N,TILE,TILE,3) uint8 on one device."""

    def __init__(self, tiles: Pixels, device: torch.device, seed: int, synthetic: bool) -> None:
        self.tiles = torch.from_numpy(tiles).to(device)
        self.synthetic = _synthetic(tiles, seed).to(device) if synthetic else None

    def batch(
        self, rng: np.random.Generator, count: int, crop: int, grey_share: float,
        synthetic_share: float = 0.0,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """x (B,3,crop,crop) float32 0..255 and grey (B,) bool, flipped and transposed at random."""
        made = 0
        if self.synthetic is not None:
            made = round(count * synthetic_share + rng.random() - 0.5)
        parts = [_cut(self.tiles, rng, count - made, crop)]
        if made and self.synthetic is not None:
            parts.append(_cut(self.synthetic, rng, made, crop))
        x = torch.cat(parts)[to_device(rng.permutation(count), self.tiles.device)]
        grey = to_device(rng.random(count) < grey_share, x.device)
        x = torch.where(grey[:, None, None, None], x.mean(1, keepdim=True).round(), x)
        return x.contiguous(memory_format=torch.channels_last), grey


def to_device(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor there, without waiting for what the device has to do."""
    tensor = torch.from_numpy(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _cut(tiles: Tensor, rng: np.random.Generator, count: int, crop: int) -> Tensor:
    """(count,3,crop,crop) float32."""
    drawn = np.empty((6, count), np.int64)
    drawn[0] = rng.integers(len(tiles), size=count)
    drawn[1:3] = rng.integers(0, TILE - crop + 1, (2, count))
    drawn[3:6] = rng.random((3, count)) < np.array([[0.25], [0.5], [0.25]])
    which, top, left, down, across, turned = to_device(drawn, tiles.device)
    steps = torch.arange(crop, device=tiles.device)

    def places(first: Tensor, backwards: Tensor) -> Tensor:
        steps_taken = torch.where(backwards[:, None] > 0, crop - 1 - steps, steps)
        return first[:, None] + steps_taken

    rows, columns = places(top, down), places(left, across)
    x = tiles[which[:, None, None], rows[:, :, None], columns[:, None, :]]
    x = x.permute(0, 3, 1, 2).float()
    return torch.where(turned[:, None, None, None] > 0, x.transpose(2, 3), x)


def _synthetic(tiles: Pixels, seed: int) -> Tensor:
    """Tiles that are not photographs: see `aecodec.training.synthetic`."""

    def make(number: int) -> Pixels:
        rng = np.random.default_rng([seed, 9, number])
        return synthetic_patch(rng, TILE, tiles[rng.integers(len(tiles))])

    with ThreadPoolExecutor() as pool:
        return torch.from_numpy(np.stack(list(pool.map(make, range(SYNTHETIC)))))
