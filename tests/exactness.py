"""What the exactness tests compare: inputs at the extremes of the range, and every runtime.

Run as a program it prints the checksum of what one runtime computes, for the tests that need
a process of their own (processor capabilities, another architecture).
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from oracle import IntegerNetworks

from aecodec.container import Tile
from aecodec.model import Model, open_model
from aecodec.prior import STEP_PHASES, with_means
from aecodec.tile import decode_tile, encode_tile
from aecodec.transforms import OnnxNetworks
from aecodec.weights import id_of, open_weights

Float = npt.NDArray[np.float32]
LOW, HIGH, Z_HIGH = -1024, 1023, 15 * 64
COUNT = 200  # random latents
CASES = (  # height and width in pixels, quality in hundredths, grey
    (64, 128, 0, False),
    (64, 64, 3370, True),
    (128, 64, 6666, False),
    (64, 64, 10000, False),
)


class OracleNetworks(OnnxNetworks):
    """The oracle's exact networks; the floating-point ones stay on ONNX Runtime."""

    def __init__(self, folder: Path, vectors: Any) -> None:
        super().__init__(folder, vectors, 1)
        self._oracle = IntegerNetworks(folder)

    def hyper_synthesis(self, z: Float) -> Float:
        return self._oracle.hyper_synthesis(z)

    def prior(self, step: int, context: Float, common: Float) -> tuple[Float, Float]:
        return self._oracle.prior(step, context, common)

    def predictor(self, step: int, latent: Float, mean: Float, offset: Any) -> Float:
        return self._oracle.predictor(step, latent, mean, offset)


def folder_and_vectors() -> tuple[Path, Any]:
    """What the constructors of networks ask for, of the model that new files are written with."""
    weights = open_weights(id_of())
    return weights.folder, weights.tensors("vectors")


def oracle() -> OracleNetworks:
    return _oracle(id_of())


@functools.cache
def _oracle(model_id: str) -> OracleNetworks:
    return OracleNetworks(*folder_and_vectors())


def extremes() -> Iterator[tuple[int, Float, Float, Float]]:
    """(step, z, context, common): latents of 4 x 4 side by side, at the ends of the range.

    A third is random over the range, a third consists of its two ends only, and a third
    follows the signs of one row of weights, which drives its sum as far as it can go.
    """
    tensors = oracle()._oracle.tensors
    rng = np.random.default_rng(5)
    for step in range(4):
        enter = tensors["prior.enter.weight"][step].astype(np.int64)
        planes = enter.shape[1] - len(tensors["h_s.up2.weight"]) // 4  # of the context
        weights = [tensors["h_s.stem.weight"], enter[:, :planes], enter[:, planes:]]
        ends = (-Z_HIGH, Z_HIGH), (LOW, HIGH), (LOW, HIGH)
        inputs = []
        for weight, (low, high), side in zip(weights, ends, (1, 4, 4), strict=True):
            rows, channels = weight.shape
            latents = []
            for number in range(COUNT // 4):
                shape = (channels, side, side)
                towards = np.where(weight[rng.integers(rows)] < 0, low, high)
                latents.append(
                    (
                        rng.integers(low, high + 1, shape),
                        rng.choice((low, high), shape),
                        np.broadcast_to(towards[:, None, None], shape),
                    )[number % 3]
                )
            inputs.append(np.concatenate(latents, 2)[None].astype(np.float32))
        z, context, common = inputs
        yield step, z, context, common


def outputs(networks: OnnxNetworks) -> list[Float]:
    """Everything that the exact networks compute on `extremes`, in one list."""
    found: list[Float] = []
    for step, z, context, common in extremes():
        mean, scale = networks.prior(step, context, common)
        found += [networks.hyper_synthesis(z), mean, scale]
        if step in open_model(threads=1).prior.offsets:
            found += better_means(networks, step, context, mean)
    return found


def better_means(networks: OnnxNetworks, step: int, context: Float, mean: Float) -> list[Float]:
    """What the predictor makes of extreme contexts and means, and of mild ones."""
    tables, found = open_model(threads=1).prior, []
    known = context.copy()
    for quarter, phase in enumerate(STEP_PHASES[step]):
        known[0, quarter : len(tables.luma) : 4, phase // 2 :: 2, phase % 2 :: 2] = 0
    for shift, quality in ((0, 0), (4, 5000), (7, 10000)):
        context, mild = np.floor(known / 2**shift), np.floor(mean / 2**shift)
        latent = with_means(step, context, mild)
        found.append(networks.predictor(step, latent, mild, tables.offset(step, quality)))
    return found


def with_networks(networks: OnnxNetworks) -> Model:
    """The model that new files are written with, on another runtime."""
    return dataclasses.replace(open_model(threads=1), networks=networks)


def picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """A picture with a gradient, an edge and noise."""
    rng = np.random.default_rng(height * width)
    rows, columns = np.mgrid[:height, :width]
    plane = rows * 2 + columns + 60 * (columns > width // 2)
    noise = rng.integers(0, 40, (height, width, 3)) * (rows > height // 2)[..., None]
    return np.clip(plane[..., None] * (1.0, 0.8, 0.6) + noise, 0, 255).astype(np.uint8)


def tiles() -> tuple[tuple[Float, Tile, npt.NDArray[np.float32]], ...]:
    """(u, tile, y_hat) of every case, coded and decoded with the oracle."""
    return _tiles(id_of())


@functools.cache
def _tiles(model_id: str) -> tuple[tuple[Float, Tile, npt.NDArray[np.float32]], ...]:
    model, found = with_networks(oracle()), []
    for height, width, quality, grey in CASES:
        u = model.networks.analysis(picture(height, width), quality)
        tile = encode_tile(model, u, quality, grey)
        found.append((u, tile, decode_tile(model, tile, (height, width), quality, grey)))
    return tuple(found)


def checksum(networks: OnnxNetworks) -> str:
    """CRC-32 of `outputs`, then of the payloads coded with these networks."""
    value = 0
    for array in outputs(networks):
        value = zlib.crc32(array.astype("<i4").tobytes(), value)
    model, payloads = with_networks(networks), 0
    for (_, _, quality, grey), (u, _, _) in zip(CASES, tiles(), strict=True):
        # z comes from a floating-point network and need not be equal everywhere: take the
        # runtime that all processes on one machine share.
        networks.hyper_analysis = oracle().hyper_analysis  # type: ignore[method-assign]
        payloads = zlib.crc32(encode_tile(model, u, quality, grey).payload, payloads)
    return f"{value:08x} {payloads:08x}"


def main(arguments: list[str]) -> None:
    if arguments == ["torch"]:
        import torch

        from aecodec.torch_networks import TorchNetworks

        torch.set_num_threads(1)
        networks: OnnxNetworks = TorchNetworks(
            *folder_and_vectors(), "cpu", exact_dtype="float32", convolution=True
        )
        print(torch.backends.cpu.get_cpu_capability(), checksum(networks))
    else:
        print("NumPy", checksum(OnnxNetworks(*folder_and_vectors(), 2)))


if __name__ == "__main__":
    main(sys.argv[1:])
