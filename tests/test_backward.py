"""What the search runs backwards has the gradients that PyTorch finds, and is worth its time."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

import synthetic  # noqa: E402

from aecodec import search  # noqa: E402
from aecodec.cost import Cost  # noqa: E402
from aecodec.effort import LEVELS  # noqa: E402
from aecodec.foresight import Foresight  # noqa: E402
from aecodec.model import Model, open_model  # noqa: E402
from aecodec.prior import STEPS, UNITS  # noqa: E402
from aecodec.tile import Coded  # noqa: E402
from aecodec.torch_networks import TorchNetworks  # noqa: E402
from aecodec.torch_predictor import parts_of, whole_of  # noqa: E402
from aecodec.watch import Clock  # noqa: E402
from aecodec.weights import id_of  # noqa: E402
from aecodec.window import Window, cut  # noqa: E402

torch.set_num_threads(1)
QUALITY = 3000


class Rounding:
    """PyTorch, but rounding passes gradients on."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(torch, name)
        if name not in ("round", "floor"):
            return function
        return lambda x: x + (function(x) - x).detach()


class Straight(TorchNetworks):
    """The networks with gradients."""

    def __init__(self, model: Model) -> None:
        folder, vectors = model.weights.folder, model.weights.tensors("vectors")
        super().__init__(folder, vectors, "cpu", exact_dtype="float32", convolution=True)
        self._torch = Rounding()


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(id_of(), threads=1)


@pytest.fixture(scope="module")
def window(model: Model) -> Window:
    pixels = cut(synthetic.picture("RGB", 128, 128).pixels, (0, 0, 128, 128))
    u = model.networks.analysis(pixels, QUALITY)
    return Window(pixels, u, slice(0, 8), slice(0, 8), 128, 128)


@pytest.fixture(scope="module")
def coded(model: Model, window: Window) -> Coded:
    # Where an activation lies on a kink, both slopes of it are right: not so with these symbols,
    # which hide no signs.
    plain = dataclasses.replace(model, rates=None)
    return search.choose(plain, window, QUALITY, False, LEVELS[2], Clock())


def assert_close(found: Any, expected: torch.Tensor, within: float = 1e-5) -> None:
    wanted = expected.detach().numpy().reshape(found.shape)
    assert np.linalg.norm(wanted) > 0
    assert np.linalg.norm(found - wanted) < within * np.linalg.norm(wanted)


@pytest.mark.parametrize("step", range(STEPS))
def test_the_prior_backwards(step: int, model: Model, coded: Coded) -> None:
    u, when = Foresight(Cost(model, QUALITY, False))._context(coded)
    prior, (m, h, w) = model.at(QUALITY, False), u.shape
    context, common = prior.empty_context(h, w), prior.common(coded.z)
    context[0, :m] = u * (when < step)
    slopes = np.random.default_rng(step).standard_normal((2, 4, m // 4, h * w // 4))
    by_mean, by_scale = slopes.astype(np.float32)
    found = model.networks.prior_slope(step, context, common, by_mean, by_scale)
    given = [torch.from_numpy(a).requires_grad_() for a in (context, common)]
    mean, scale = Straight(model)._graph_prior(torch.tensor(step), *given)
    (mean * torch.from_numpy(by_mean) + scale * torch.from_numpy(by_scale)).sum().backward()
    assert_close(found[0], given[0].grad[0, :m])
    assert_close(found[1], given[1].grad)


def test_the_hyper_synthesis_backwards(model: Model, coded: Coded) -> None:
    z = (coded.z[None] * UNITS).astype(np.float32)
    whole = torch.from_numpy(coded.z[None].astype(np.float32)).requires_grad_()
    (common,) = Straight(model)._graph_hyper_synthesis(whole * UNITS)
    slope = torch.randn(common.shape, generator=torch.Generator().manual_seed(1))
    (common * slope).sum().backward()
    assert_close(model.networks.hyper_slope(z, slope.numpy()), whole.grad)


def test_the_synthesis_backwards(model: Model, window: Window, coded: Coded) -> None:
    """Of errors in part of the picture; the pixels are those of the synthesis."""
    counted = np.ones((128, 128), np.float32)
    counted[:, 100:] = 0
    x_hat, missing = model.networks.correction(coded.y_hat, window.pixels, counted, QUALITY)
    assert np.array_equal(x_hat, model.networks.synthesis(coded.y_hat, QUALITY))
    error = torch.from_numpy((window.pixels.astype(np.float32) - x_hat) * counted[..., None])
    error = error.permute(2, 0, 1)[None]
    networks, (_, quality) = Straight(model), model.networks._synthesis_vectors(QUALITY).popitem()
    weight, offset = (
        networks._tensor(name, torch.float32) for name in ("linear_s", "linear_offset")
    )
    linear = networks._multiply(torch.from_numpy(coded.y_hat[None]), weight, offset)
    linear = networks._lap(torch.pixel_shuffle(linear, 16), transposed=True).requires_grad_()
    filtered(networks, linear, f"filter.{model.networks.band(QUALITY)}", quality).backward(error)
    (u,) = networks._graph_analysis(128 + error + linear.grad)
    assert_close(missing, u, within=0.05)  # values that 8 bits cut off are not looked for


def filtered(networks: Straight, x: torch.Tensor, own: str, quality: Any) -> torch.Tensor:
    a = networks._conv3(parts_of(torch, x, 2), f"{own}.first") * torch.from_numpy(quality)
    layers = [f"{own}.layers.{i}" for i in range(networks._count(f"{own}.layers", "weight"))]
    blocks = [f"{own}.blocks.{i}" for i in range(networks._count(f"{own}.blocks"))]
    a = passing(networks, own, torch.nn.functional.leaky_relu(a, 0.1), layers, blocks)
    if not networks._has(f"{own}.last.weight_scale"):
        a = networks._conv3(a, f"{own}.last")
    whole = whole_of(torch, a, 2)
    assert isinstance(whole, torch.Tensor)
    return whole


def passing(
    networks: Straight, name: str, a: torch.Tensor, layers: list[str], blocks: list[str]
) -> torch.Tensor:
    """The filter in 8 bits, written with operations whose gradients PyTorch knows."""

    def tensor(name: str) -> torch.Tensor:
        given = networks._tensor(name, torch.float32)
        assert isinstance(given, torch.Tensor)
        return given

    scale, zero = tensor(f"{name}.points").T

    def whole(value: torch.Tensor, at: int) -> torch.Tensor:
        return (value + (value.round() - value).detach() + zero[at]).clamp(0, 255)

    def convolve(a: torch.Tensor, name: str, at: int, target: int) -> torch.Tensor:
        weight, bias = tensor(f"{name}.weight"), tensor(f"{name}.bias")
        total = torch.nn.functional.conv2d(a - zero[at], weight, bias, padding=1)
        factor = scale[at] * tensor(f"{name}.weight_scale") / scale[target]
        return whole(total * factor[:, None, None], target)

    at = 0
    a = whole(a / scale[at], at)
    for layer in layers:
        a, at = convolve(a, layer, at, at + 1), at + 1
    for block in blocks:
        b = convolve(a, f"{block}.w1", at, at + 1)
        b = convolve(b, f"{block}.w2", at + 1, at + 2)
        total = (a - zero[at]) * scale[at] + (b - zero[at + 2]) * scale[at + 2]
        a, at = whole(total / scale[at + 3], at + 3), at + 3
    if networks._has(f"{name}.last.weight_scale"):
        a, at = convolve(a, f"{name}.last", at, at + 1), at + 1
    return (a - zero[at]) * scale[at]


@pytest.mark.parametrize("without", ["foresight", "correction"])
def test_either_slope_is_worth_its_time(
    without: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a photograph, over three qualities: a single search may be lucky."""
    with Image.open(Path(__file__).parent / "data" / "crop.png") as image:
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:192, 64:256])
    qualities = (1500, 3000, 5000)

    def least() -> float:
        total = 0.0
        for quality in qualities:
            cost, u = Cost(model, quality, False), model.networks.analysis(pixels, quality)
            seen = Window(pixels, u, slice(0, 12), slice(0, 12), 192, 192)
            found = search.choose(model, seen, quality, False, LEVELS[8], Clock())
            total += math.log(cost.total(seen, found, cost.decoded(seen, found.y_hat)))
        return total / len(qualities)

    full = least()
    if without == "foresight":
        monkeypatch.setattr(search, "FORESIGHT", 0.0)
        monkeypatch.setattr(search, "FORESIGHT_GROWTH", 0.0)
    else:  # what is missing by the analysis alone, as if there were no filter

        def plain(self: Cost, window: Window, y_hat: Any) -> Any:
            decoded = self.decoded(window, y_hat)
            return decoded, window.u - self.model.networks.analysis(decoded, self.quality)

        monkeypatch.setattr(Cost, "corrected", plain)
    assert full < least() - 0.005


def test_a_large_window_is_corrected_in_blocks(
    model: Model, window: Window, coded: Coded, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost = Cost(model, QUALITY, False)
    whole = cost.corrected(window, coded.y_hat)
    monkeypatch.setattr("aecodec.cost.BLOCK", 64)
    blocks = cost.corrected(window, coded.y_hat)
    assert np.array_equal(whole[0], blocks[0])
    assert np.allclose(whole[1], blocks[1], atol=2e-3)


def test_pytorch_leaves_it_to_onnx_runtime(model: Model, window: Window, coded: Coded) -> None:
    counted = np.ones((128, 128), np.float32)
    expected = model.networks.correction(coded.y_hat, window.pixels, counted, QUALITY)
    found = Straight(model).correction(coded.y_hat, window.pixels, counted, QUALITY)
    assert np.array_equal(found[0], expected[0])
    assert np.allclose(found[1], expected[1], atol=1e-3)
