"""The predictor: it learns, it is released as it was trained, and it comes back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("compressai")
pytest.importorskip("lightning")
pytest.importorskip("onnx")

from oracle import IntegerNetworks  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from test_training_stages import LINEAR, started  # noqa: E402, F401

from aecodec import codec  # noqa: E402
from aecodec.picture import Picture  # noqa: E402
from aecodec.prior import PICTURE_MIN, PICTURE_UNITS, STEP_PHASES, interpolate, with_means  # noqa: E402
from aecodec.training import export, predict, reopen  # noqa: E402
from aecodec.training.config import TrainConfig, load_config  # noqa: E402
from aecodec.training.data import open_tiles  # noqa: E402
from aecodec.training.eight import points  # noqa: E402
from aecodec.training.model import Codec  # noqa: E402
from aecodec.training.part import PartRun, batches  # noqa: E402
from aecodec.transforms import OnnxNetworks  # noqa: E402

torch.set_num_threads(1)
CPU = torch.device("cpu")
SMALL = dataclasses.replace(
    LINEAR, predictor_steps=(2, 3), predictor_width=8, predictor_layers=1, predictor_blocks=1
)


@pytest.fixture(params=[3, 1], ids=["colour", "luma"])
def run(
    started: tuple[TrainConfig, Path],  # noqa: F811
    request: pytest.FixtureRequest,
) -> tuple[TrainConfig, PartRun]:
    model = dataclasses.replace(SMALL, F=8, predictor_colours=request.param)
    cfg = dataclasses.replace(started[0], model=model, batch=4, steps=60, adam_lr=2e-3)
    return cfg, predict.open_run(cfg, CPU)


def coded_pool(cfg: TrainConfig, state: PartRun) -> predict.Pool:
    tiles = open_tiles(Path(cfg.data), Path(cfg.cache))
    return predict.code_pool(state.model, tiles, cfg, 16)


def test_it_takes_bits_off_and_nothing_else_moves(run: tuple[TrainConfig, PartRun]) -> None:
    cfg, state = run
    pool = coded_pool(cfg, state)
    with torch.no_grad():
        before = [float(predict.cost(state.model, pool, step)) for step in (2, 3)]
    predict.run(cfg, 16, CPU)
    after = predict.open_run(cfg, CPU)
    with torch.no_grad():
        now = [float(predict.cost(after.model, pool, step)) for step in (2, 3)]
    assert all(b < a for a, b in zip(before, now, strict=True))
    start, end = load_file(cfg.start_from), load_file(Path(cfg.out) / "best.safetensors")
    assert all(torch.equal(start[name], end[name]) for name in start)


def test_a_step_sees_only_what_earlier_steps_have_coded(run: tuple[TrainConfig, PartRun]) -> None:
    cfg, state = run
    pool = coded_pool(cfg, state)
    for step in (2, 3):
        known = predict._known(pool, step)
        assert known.mean() == step / 4
        other = pool._replace(u=torch.where(known.bool(), pool.u, pool.u + 64))
        with torch.no_grad():
            costs = [float(predict.cost(state.model, p, step)) for p in (pool, other)]
        assert costs[0] == costs[1]


@pytest.fixture
def released(run: tuple[TrainConfig, PartRun], tmp_path: Path) -> tuple[Codec, Path]:
    cfg, state = run
    pool, predictor = coded_pool(cfg, state), state.model.predictor
    assert predictor is not None
    with torch.no_grad():  # as if it had learned: an untrained filter adds next to nothing
        for step in predictor.steps:
            predictor.net(step).first.conv.weight.normal_(0.0, 0.5)
            predictor.net(step).offsets.anchors.normal_(0.0, 0.3)
            predictor.net(step).last.conv.weight.normal_(0.0, 0.2)
    predict.choose_scales(predictor, state.model, batches(pool, cfg, 0))
    seen = points(state.model.prior)
    for point in seen:
        point.scale.fill_(1 / 16)
    state.model.worth.copy_(torch.linspace(0.5, 2, len(state.model.worth)))
    return state.model, export.export(state.model, tmp_path / "w", {"training": {}})


def inputs(step: int, most: int = 900) -> tuple[Any, ...]:
    """What is known with means at the step's elements, these means, and offsets."""
    context, mean, offset = asked(step, most)
    return with_means(step, context, mean), mean, offset


def asked(step: int, most: int) -> tuple[Any, ...]:
    """Context with nothing at the step's elements, means, and offsets."""
    rng = np.random.default_rng(0)
    context = rng.integers(-most, most, (1, LINEAR.M + 4, 8, 4)).astype(np.float32)
    for quarter, phase in enumerate(STEP_PHASES[step]):
        context[0, quarter : LINEAR.M : 4, phase // 2 :: 2, phase % 2 :: 2] = 0
    mean = rng.integers(-most, most, (4, LINEAR.M // 4, 8)).astype(np.float32)
    return context, mean, np.full(8, 300, np.int32)


@pytest.mark.parametrize("step", [2, 3])
def test_runtimes_compute_the_same_integers(released: tuple[Codec, Path], step: int) -> None:
    from aecodec.torch_networks import TorchNetworks

    _, folder = released
    found = [
        networks.predictor(step, *inputs(step))
        for networks in (
            IntegerNetworks(folder), OnnxNetworks(folder, {}, 1), TorchNetworks(folder, {}, "cpu"),
        )
    ]  # fmt: skip
    assert np.any(found[0] != inputs(step)[1])
    assert all(np.array_equal(found[0], other) for other in found)


def test_what_is_released_is_what_was_trained(released: tuple[Codec, Path]) -> None:
    """But for rounding between the two passes of the lapped filter, which training leaves out."""
    model, folder = released
    assert model.predictor is not None
    context, mean, _ = asked(3, 100)  # nothing is clipped
    quality = torch.tensor([40.0])
    tables = load_file(folder / "model.safetensors")["tables.predictor_3"].numpy()
    offset = interpolate(tables.astype(np.int64), 4000).astype(np.int32)
    latent = with_means(3, context, mean)
    exact = OnnxNetworks(folder, {}, 1).predictor(3, latent, mean, offset) - mean
    shaped = torch.from_numpy(mean / 256).reshape(4, 1, LINEAR.M // 4, 4, 2)
    planes = [shaped[STEP_PHASES[3].index(phase)] for phase in range(4)]
    with torch.no_grad():
        u = torch.from_numpy(context[:, : LINEAR.M] / 64)
        found = model.predictor(3, u, torch.stack(planes), quality)
    order = [found[phase].reshape(LINEAR.M // 4, -1).numpy() for phase in STEP_PHASES[3]]
    off = np.abs(exact / 256 - np.stack(order)).mean()
    assert off < 0.06 * np.abs(exact / 256).mean()


def test_it_adds_without_rounding(released: tuple[Codec, Path]) -> None:
    """Residual sums have one scale, pictures come out in whole numbers of 1/8 of a level."""
    tensors = load_file(released[1] / "model.safetensors")
    for step in SMALL.predictor_steps:
        points, zeros = (
            tensors[f"predictor.{step}.{part}"].numpy() for part in ("points", "zeros")
        )
        assert np.all(np.frexp(points)[0] == 0.5)
        assert points[-1] * PICTURE_UNITS >= 1
        first = 1 + SMALL.predictor_layers  # the point that the residual blocks read
        stream = [first, *(at for at in range(first + 1, len(points) - 1) if zeros[at])]
        assert len({float(points[at]) for at in stream}) == 1
    rows = np.abs(tensors["predictor.lap"].numpy().astype(np.int64)).sum(1)
    assert rows.max() * -PICTURE_MIN < 2**24


def test_reopened_it_is_released_again(released: tuple[Codec, Path], tmp_path: Path) -> None:
    _, folder = released
    again, _ = reopen.reopen(folder)
    twice = export.export(again, tmp_path / "w2", {"training": {}})
    one, two = (load_file(f / "model.safetensors") for f in (folder, twice))
    assert torch.equal(again.worth, released[0].worth)
    for name in (name for name in one if name.startswith("predictor.")):
        if name.endswith(("back.weight", "picture.weight")):  # from the codec's, in 16 bits
            assert (one[name] - two[name]).abs().max() <= 2
        else:
            assert torch.equal(one[name], two[name]), name


def test_files_of_such_a_model_decode(
    released: tuple[Codec, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = released
    monkeypatch.setenv("AECODEC_WEIGHTS", str(folder.parent))
    rng = np.random.default_rng(1)
    pixels = np.repeat(np.repeat(rng.integers(0, 256, (6, 8, 3), np.uint8), 16, 0), 16, 1)
    for picture in (Picture(pixels), Picture(pixels[..., 0])):
        encoder = codec.Encoder(picture)
        data = encoder.encode(50)
        assert encoder.verify(data) > 10


def test_one_colour_predicts_luma_alone(released: tuple[Codec, Path]) -> None:
    model, folder = released
    better = IntegerNetworks(folder).predictor(3, *inputs(3)) - inputs(3)[1]
    luma = model.grey_mask.numpy().reshape(-1, 4).T > 0  # as means are: quarter by quarter
    assert model.predictor is not None
    assert np.any(better[luma])
    assert np.any(better[~luma]) == (model.predictor.colours == 3)


def test_a_smaller_one_starts_from_what_fits(run: tuple[TrainConfig, PartRun]) -> None:
    """Of three colours, two steps and a block: luma, one step and no block, as for grey ones."""
    cfg, state = run
    if cfg.model.predictor_colours == 1:
        pytest.skip("starts from one of three colours")
    state.save()
    less = {"predictor_colours": 1, "predictor_steps": (3,), "predictor_blocks": 0}
    smaller = dataclasses.replace(
        cfg, model=dataclasses.replace(cfg.model, **less), out=cfg.out + ".less",
        start_from=str(Path(cfg.out) / "best.safetensors"),
    )  # fmt: skip
    predictor = predict.open_run(smaller, CPU).model.predictor
    assert predictor is not None
    assert predictor.steps == (3,)
    assert state.model.predictor is not None
    one, three = predictor.net(3), state.model.predictor.net(3)
    grey, quality = torch.randn(1, 1, 32, 32), torch.tensor([50.0])
    with torch.no_grad():  # a block that has learned nothing adds nothing
        whole = three(grey.expand(-1, 3, -1, -1), quality).mean(1, keepdim=True)
        assert torch.allclose(one(grey, quality), whole, atol=1e-5)


def test_the_configuration_in_the_repository_has_a_predictor() -> None:
    path = Path(predict.__file__).parent / "configs" / "predictor.toml"
    assert load_config(path).model.predictor_steps
    with pytest.raises(ValueError, match="predictor_steps"):
        predict.open_run(TrainConfig(), CPU)
