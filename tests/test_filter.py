"""The filter in 8 bits: training, ONNX Runtime and PyTorch compute the same pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("compressai")
pytest.importorskip("onnx")

from aecodec.torch_networks import TorchNetworks  # noqa: E402
from aecodec.training import export  # noqa: E402
from aecodec.training.config import Config  # noqa: E402
from aecodec.training.eight import points  # noqa: E402
from aecodec.training.layers import WEIGHT_MAX, whole_weights  # noqa: E402
from aecodec.training.model import Codec  # noqa: E402
from aecodec.transforms import OnnxNetworks  # noqa: E402
from aecodec.weights import Weights  # noqa: E402

torch.set_num_threads(1)
SMALL = Config(
    enc_blocks8=0, enc_blocks16=0, dec_blocks8=0, dec_blocks16=0,
    M=32, Z=8, H=8, W=16, prior_blocks=1, F=16, filter_blocks=2, filter_slope=0.0,
    filter_bands=2,
)  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["last32", "last8"])
def model(request: pytest.FixtureRequest) -> Codec:
    """Random weights whose filter changes the picture by several levels."""
    torch.manual_seed(2)
    model = Codec(dataclasses.replace(SMALL, filter_last_eight=request.param)).eval()
    with torch.no_grad():
        model.linear_s.normal_(std=0.06)
        for band in model.filter:
            for block in band.blocks:
                block.w2.weight.normal_(std=0.05)
            band.last.weight.normal_(std=0.02)
        choose_scales(model)
    return model


def choose_scales(model: Codec) -> None:
    """Points of the prior, which the export asks for."""
    for point in points(model.prior):
        point.scale.fill_(1 / 16)


@pytest.fixture(scope="module")
def y_hat() -> torch.Tensor:
    torch.manual_seed(3)
    return torch.randn(1, SMALL.M, 8, 8) * 120


@pytest.fixture(scope="module")
def watched(model: Codec, y_hat: torch.Tensor) -> Codec:
    for band in model.filter:
        band.watching = True
    with torch.no_grad():
        for quality in (0.0, 50.0, 100.0):
            model.synthesis(y_hat, torch.tensor([quality]))
    for band in model.filter:
        band.watching = False
    return model


def pictures(networks: OnnxNetworks, y_hat: torch.Tensor) -> np.ndarray:
    return np.stack([networks.synthesis(y_hat[0].numpy(), q) for q in (0, 5000, 10000)]).astype(int)


def trained_pictures(model: Codec, y_hat: torch.Tensor, eight_bits: bool) -> np.ndarray:
    model.filter.set_quantised(eight_bits)
    with torch.no_grad():
        out = [model.synthesis(y_hat, torch.tensor([q])) for q in (0.0, 50.0, 100.0)]
    model.filter.set_quantised(False)
    return torch.cat(out).clamp(0, 255).round().permute(0, 2, 3, 1).numpy().astype(int)


def test_runtimes_agree_with_training_in_8_bits(
    watched: Codec, y_hat: torch.Tensor, tmp_path: Path
) -> None:
    weights = Weights(export.export(watched, tmp_path, {}))
    vectors = weights.tensors("vectors")
    onnx = pictures(OnnxNetworks(weights.folder, vectors, 1), y_hat)
    plain = pictures(OnnxNetworks(weights.folder, vectors, 1, optimise=False), y_hat)
    pytorch = pictures(TorchNetworks(weights.folder, vectors, "cpu"), y_hat)
    assert np.abs(onnx - plain).max() <= 1
    assert np.abs(onnx - pytorch).max() <= 1
    trained = trained_pictures(watched, y_hat, True)
    assert np.abs(onnx - trained).mean() < 0.1
    floating = trained_pictures(watched, y_hat, False)
    assert 0 < np.abs(onnx - floating).mean() < 1.0


def test_each_band_of_quality_has_its_filter(watched: Codec, y_hat: torch.Tensor) -> None:
    """A batch of mixed qualities goes through the filters that each of them has alone."""
    quality = torch.tensor([0.0, 49.9, 50.0, 100.0])
    assert watched.filter.band(quality).tolist() == [0, 0, 1, 1]
    with torch.no_grad():
        x = watched.linear_synthesis(y_hat).expand(4, -1, -1, -1)
        together = watched.restore(x, quality)
        alone = [watched.restore(x[:1], q[None]) for q in quality]
        assert torch.allclose(together, torch.cat(alone), atol=1e-3)
        watched.filter.only = 0
        first = watched.restore(x, quality)
        watched.filter.only = -1
    assert torch.allclose(first[:2], together[:2], atol=1e-3)
    assert not torch.allclose(first[2:], together[2:], atol=0.1)


def test_without_ranges_the_filter_is_exported_in_floating_point(
    y_hat: torch.Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    model = Codec(Config(**{**SMALL.__dict__, "filter_slope": 0.1})).eval()
    with torch.no_grad():
        model.linear_s.normal_(std=0.06)
        for band in model.filter:
            band.last.weight.normal_(std=0.02)
        choose_scales(model)
    weights = Weights(export.export(model, tmp_path, {}))
    vectors = weights.tensors("vectors")
    onnx = pictures(OnnxNetworks(weights.folder, vectors, 1), y_hat)
    pytorch = pictures(TorchNetworks(weights.folder, vectors, "cpu"), y_hat)
    assert np.abs(onnx - pytorch).max() <= 1
    assert np.abs(onnx - trained_pictures(model, y_hat, False)).max() <= 2


def test_two_products_fit_in_16_bits() -> None:
    """Some processors add pairs of products in 16 bits and cut off what does not fit."""
    torch.manual_seed(5)
    whole, scale = whole_weights(torch.randn(8, 8, 3, 3))
    assert whole.abs().max() == WEIGHT_MAX
    assert 2 * 255 * WEIGHT_MAX < 2**15
    assert torch.all(scale > 0)
