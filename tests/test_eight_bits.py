"""The prior in 8 bits: training and every runtime compute the same integers."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("compressai")
pytest.importorskip("onnx")

from oracle import IntegerNetworks  # noqa: E402

from aecodec.torch_networks import TorchNetworks  # noqa: E402
from aecodec.training import export  # noqa: E402
from aecodec.training.config import Config  # noqa: E402
from aecodec.training.eight import Point, choose, points  # noqa: E402
from aecodec.training.layers import WEIGHT_MAX, whole_weights  # noqa: E402
from aecodec.training.model import Codec  # noqa: E402
from aecodec.training.networks import MEAN_GRID, SCALE_GRID  # noqa: E402
from aecodec.training.quarters import take  # noqa: E402
from aecodec.transforms import OnnxNetworks  # noqa: E402
from aecodec.weights import Weights  # noqa: E402

torch.set_num_threads(1)
SMALL = Config(
    enc_blocks8=0, enc_blocks16=0, dec_blocks8=0, dec_blocks16=0,
    M=32, Z=8, H=8, W=16, prior_blocks=2, prior_kernel=5, F=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Codec:
    """Random weights with scales as they are chosen from random activations."""
    torch.manual_seed(2)
    model = Codec(SMALL).eval()
    for point in points(model.prior):
        point.seen = []
    with torch.no_grad():
        for step in range(4):
            model.prior(step, torch.randn(2, SMALL.M + 4, 8, 8), torch.randn(2, SMALL.W, 8, 8))
    choose(model.prior.stream())
    for point in points(model.prior):
        if point.seen:
            choose([point])
    model.set_quantised(True)
    return model


def integers(seed: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-300, 300, (1, channels, 8, 8)).astype(np.float32)


def test_training_computes_what_is_released(model: Codec, tmp_path: Path) -> None:
    weights = Weights(export.export(model, tmp_path, {}))
    given = weights.folder, weights.tensors("vectors")
    runtimes = [OnnxNetworks(*given, 1), OnnxNetworks(*given, 2, optimise=False)]
    runtimes += [TorchNetworks(*given, "cpu"), IntegerNetworks(weights.folder)]
    context, common = integers(1, SMALL.M + 4), integers(2, SMALL.W)
    for step in range(4):
        with torch.no_grad():
            trained = model.prior(
                step, torch.from_numpy(context) / 64, torch.from_numpy(common) / 64
            )
        for output, grid in enumerate((MEAN_GRID, SCALE_GRID)):
            quarter = (take(trained[output], step) * grid).numpy()  # (phase, 1, M/4, h/2, w/2)
            found = [runtime.prior(step, context, common)[output] for runtime in runtimes]
            assert all(np.array_equal(found[0], other) for other in found[1:])
            # By phase in training, by quarter of the channels in the runtimes.
            by_phase = sorted(map(bytes, quarter[:, 0].reshape(4, -1)))
            assert by_phase == sorted(map(bytes, found[0].reshape(4, -1)))
    assert np.abs(found[0]).max() > 0


def test_scales_are_powers_of_two_that_fit() -> None:
    torch.manual_seed(1)
    for spread in (0.1, 1.0, 3.0):
        point = Point()
        point.seen = []
        x = torch.randn(5000) * spread
        point(x)
        choose([point])
        assert np.frexp(float(point.scale))[0] == 0.5
        assert (point(x) - x).abs().mean() < 0.02 * spread + 2**-7
        assert point(torch.tensor([1e9])).item() == 127 * float(point.scale)
        assert point(torch.tensor([-1e9])).item() == -128 * float(point.scale)


def test_weights_have_seven_bits() -> None:
    torch.manual_seed(5)
    weight = torch.randn(8, 20) * torch.logspace(-3, 1, 8)[:, None]
    whole, scale = whole_weights(weight, powers=True)
    assert WEIGHT_MAX / 2 < whole.abs().amax(1).min() <= whole.abs().max() <= WEIGHT_MAX
    assert np.all(np.frexp(scale.numpy())[0] == 0.5)
    assert torch.all((whole * scale[:, None] - weight).abs() <= scale[:, None] / 2)


def test_the_export_refuses_a_prior_without_scales(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scales are not chosen"):
        export.export(Codec(SMALL), tmp_path, {})


def test_the_export_refuses_residual_sums_that_round(model: Codec, tmp_path: Path) -> None:
    spoilt = copy.deepcopy(model)
    spoilt.prior.entered.scale.mul_(2)
    with pytest.raises(ValueError, match="residual sums need one scale"):
        export.export(spoilt, tmp_path, {})
