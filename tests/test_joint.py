"""The stage in which prior, predictor and filters learn at once, and the crops it learns from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("compressai")
pytest.importorskip("lightning")
pytest.importorskip("onnx")

from safetensors.torch import load_file  # noqa: E402
from test_predictor import SMALL  # noqa: E402
from test_training_stages import started  # noqa: E402, F401

from aecodec.training import joint, predict  # noqa: E402
from aecodec.training.config import TrainConfig, load_config  # noqa: E402
from aecodec.training.crops import DeviceCrops  # noqa: E402
from aecodec.training.data import TILE, open_tiles  # noqa: E402
from aecodec.training.filter import FilterBank  # noqa: E402
from aecodec.training.model import Codec  # noqa: E402
from aecodec.training.stages import load_start  # noqa: E402

torch.set_num_threads(1)
CPU = torch.device("cpu")
TWO_BANDS = dataclasses.replace(SMALL, F=8, filter_bands=2)


@pytest.fixture
def cfg(started: tuple[TrainConfig, Path]) -> TrainConfig:  # noqa: F811
    """From a model whose predictor knows its linear path."""
    first = dataclasses.replace(started[0], model=TWO_BANDS, batch=4, steps=1)
    predict.run(first, 8, CPU)
    return dataclasses.replace(
        first, start_from=str(Path(first.out) / "best.safetensors"), out=str(started[1] / "joint"),
        steps=24, adam_lr=2e-3, filter_lr=4e-3, final_lr=0.1,
    )  # fmt: skip


def mean_loss(cfg: TrainConfig, run: str) -> float:
    """Of the weights that a run has left, on crops that are always the same."""
    state = joint.open_run(dataclasses.replace(cfg, start_from=run, out=cfg.out + ".judge"), CPU)
    tiles = open_tiles(Path(cfg.data), Path(cfg.cache))
    crops = joint.batches(DeviceCrops(tiles, CPU, 1, False), cfg, 1000)
    with torch.no_grad():
        return sum(float(joint.loss(state.model, next(crops))) for _ in range(6)) / 6


def test_all_that_follows_the_latent_learns(cfg: TrainConfig) -> None:
    joint.run(cfg, CPU)
    end = str(Path(cfg.out) / "best.safetensors")
    assert mean_loss(cfg, end) < 0.995 * mean_loss(cfg, cfg.start_from)
    before, after = load_file(cfg.start_from), load_file(end)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if name.startswith(joint.FIXED)]
    parts = ("prior.", "h_s.", "predictor.nets.2.", "predictor.nets.3.", "filter.bands.0.",
             "filter.bands.1.")  # fmt: skip
    for part in parts:
        assert [name for name in moved if name.startswith(part)], part


def test_it_goes_on_where_it_stopped(cfg: TrainConfig) -> None:
    whole = dataclasses.replace(cfg, out=cfg.out + ".whole", steps=4)
    joint.run(whole, CPU)
    state = joint.open_run(dataclasses.replace(cfg, steps=4), CPU)
    tiles = open_tiles(Path(cfg.data), Path(cfg.cache))
    crops = joint.batches(DeviceCrops(tiles, CPU, cfg.seed, False), cfg, 0)
    for _ in range(2):
        state.train_step(joint.loss, next(crops))
    state.save()
    joint.run(state.cfg, CPU)
    a, b = (load_file(Path(out) / "best.safetensors") for out in (whole.out, cfg.out))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_filters_in_8_bits_learn_on(cfg: TrainConfig) -> None:
    joint.run(dataclasses.replace(cfg, steps=2, quantised_filter=True), CPU)
    end = load_file(Path(cfg.out) / "best.safetensors")
    assert all(bool((end[f"filter.bands.{band}.high"] > 0).any()) for band in (0, 1))


def test_a_batch_that_bands_cannot_share_is_refused(cfg: TrainConfig) -> None:
    with pytest.raises(ValueError, match="batch of 5"):
        joint.open_run(dataclasses.replace(cfg, batch=5), CPU)


def test_qualities_are_those_of_the_bands_in_order(cfg: TrainConfig) -> None:
    found = joint.qualities(np.random.default_rng(1), dataclasses.replace(cfg, batch=400))
    low, high = found[:200], found[200:]
    assert 0 <= low.min() < 2
    assert 50 < low.max() <= 50 + joint.MARGIN / 2
    assert 50 - joint.MARGIN / 2 <= high.min() < 50
    assert 98 < high.max() <= 100


def test_a_wider_filter_starts_as_the_narrow_one(cfg: TrainConfig) -> None:
    narrow, wide = Codec(TWO_BANDS), Codec(dataclasses.replace(TWO_BANDS, F=12))
    for model in (narrow, wide):
        load_start(model, Path(cfg.start_from))
    x, quality = torch.randn(4, 3, 32, 32), torch.tensor([3.0, 40.0, 60.0, 99.0])
    with torch.no_grad():
        a, b = narrow.filter(x, quality), wide.filter(x, quality)
    assert torch.allclose(a, b, atol=1e-5)
    wide.filter(x, quality).square().sum().backward()
    last = wide.filter.bands[0].last.weight.grad
    assert last is not None
    assert bool((last[:, 8:] != 0).any())  # new channels can be heard


def test_samples_in_order_go_to_the_same_filters() -> None:
    bank = FilterBank(TWO_BANDS)
    x, quality = torch.randn(4, 3, 32, 32), torch.tensor([3.0, 40.0, 60.0, 99.0])
    with torch.no_grad():
        by_quality = bank(x, quality)
        bank.in_order = True
        assert torch.allclose(bank(x, quality), by_quality, atol=1e-6)


def test_crops_are_parts_of_tiles() -> None:
    rows, columns = np.meshgrid(np.arange(TILE) // 2, np.arange(TILE) // 2, indexing="ij")
    tiles = np.stack([rows, columns, np.full_like(rows, 7)], -1)[None].astype(np.uint8)
    crops = DeviceCrops(tiles, CPU, 1, False)
    x, grey = crops.batch(np.random.default_rng(1), 64, 64, 0.0)
    assert x.shape == (64, 3, 64, 64)
    assert not grey.any()
    assert bool((x[:, 2] == 7).all())
    spans = x[:, :2].amax((2, 3)) - x[:, :2].amin((2, 3))
    assert bool(((spans == 31) | (spans == 32)).all())
    down, across = x[:, 0, 0, 0] > x[:, 0, -1, -1], x[:, 1, 0, 0] > x[:, 1, -1, -1]
    turned = x[:, 0, 0, 0] == x[:, 0, -1, 0]
    for share in (down, across, turned):  # each happens, and not always
        assert 0 < int(share.sum()) < 64
    again, _ = crops.batch(np.random.default_rng(1), 64, 64, 0.0)
    assert torch.equal(x, again)


def test_grey_crops_have_no_colour_and_synthetic_ones_are_mixed_in() -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (1, TILE, TILE, 3), dtype=np.uint8)
    crops = DeviceCrops(tiles, CPU, 1, True)
    x, grey = crops.batch(np.random.default_rng(1), 8, 64, 1.0)
    assert bool(grey.all())
    assert torch.equal(x[:, 0], x[:, 1])
    assert crops.synthetic is not None
    crops.tiles = torch.zeros_like(crops.tiles)
    x, _ = crops.batch(np.random.default_rng(1), 40, 64, 0.0, 0.5)
    assert 10 <= int((x.flatten(1).amax(1) > 0).sum()) <= 20


@pytest.mark.parametrize("name", ["joint", "joint_small", "joint_small_eight"])
def test_the_configurations_in_the_repository_can_be_read(name: str) -> None:
    path = Path(joint.__file__).parent / "configs" / f"{name}.toml"
    assert load_config(path).batch % load_config(path).model.filter_bands == 0
