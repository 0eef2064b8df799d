"""Pixels of the largest variance: symbols stay far inside what can be coded, and files decode.

Hyper-latents may reach their limit (15) here, which costs bytes and no accuracy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from aecodec import codec, tile
from aecodec.entropy import SYMBOL_LIMIT, Groups, SymbolEncoder, TableSet
from aecodec.picture import Picture

SIDE = 64
Y, X = np.mgrid[:SIDE, :SIDE]
RANDOM = np.random.default_rng(8).integers(0, 2, (SIDE, SIDE, 3))
BITS = {
    **{f"checkerboard {step}": (X // step + Y // step) % 2 for step in (1, 2, 8, 16, 32)},
    "columns": X % 2,
    "white": np.ones_like(X),
    "black": np.zeros_like(X),
    "random grey": RANDOM[..., 0],
    "random colour": RANDOM,
    "opposite colours": np.dstack([X // 16 % 2, Y // 16 % 2, 1 - X // 16 % 2]),
    "cells of colour": RANDOM[:4, :4].repeat(16, 0).repeat(16, 1),
}


def pixels(name: str) -> npt.NDArray[np.uint8]:
    return (BITS[name] * 255).astype(np.uint8)


@pytest.fixture
def largest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Largest absolute value of every array of symbols that is put into a payload."""
    seen: list[int] = []
    put = SymbolEncoder.put_grouped

    def watch(self: SymbolEncoder, values: npt.NDArray[np.int32], groups: Groups,
              tables: TableSet) -> None:  # fmt: skip
        seen.append(int(np.abs(values).max(initial=0)))
        put(self, values, groups, tables)

    monkeypatch.setattr(SymbolEncoder, "put_grouped", watch)
    return seen


@pytest.mark.parametrize("quality", [0, 100])
@pytest.mark.parametrize("name", BITS)
def test_extreme_pixels_are_coded_without_clipping(
    name: str, quality: float, largest: list[int]
) -> None:
    source = Picture(pixels(name))
    data = codec.encode_picture(source, quality, verify=True, exactly=False)
    back = codec.decode_file(data).pixels
    assert (back.shape, back.dtype) == (source.pixels.shape, np.uint8)
    assert max(largest) < SYMBOL_LIMIT // 4  # far from where residuals would be clipped
    error = np.abs(back.astype(int) - source.pixels)
    assert abs(back.mean((0, 1)) - source.pixels.mean((0, 1))).max() < 24  # no shift of colours
    if quality == 100 and name in ("white", "black", "checkerboard 32"):
        assert error.mean() < 4


def test_values_beyond_the_limit_are_clipped_and_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A latent that no picture gives: the file is still one that decodes to its symbols."""
    model = codec.open_model()
    u = np.full((model.networks.analysis(np.zeros((64, 64, 3), np.uint8), 0).shape[0], 4, 4), 1e9)
    u[::2] = -1e9
    u[::3] = np.nan
    coded = tile.encode_tile(model, u.astype(np.float32), 10000, False)
    y_hat = tile.decode_tile(model, coded, (64, 64), 10000, False)
    assert np.isfinite(y_hat).all()
