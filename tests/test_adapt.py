"""The stage in which the prior's part of the last coding step gets used to a predictor."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("compressai")
pytest.importorskip("lightning")
pytest.importorskip("onnx")

from safetensors.torch import load_file  # noqa: E402
from test_predictor import SMALL  # noqa: E402
from test_training_stages import started  # noqa: E402, F401

from aecodec.training import adapt, predict  # noqa: E402
from aecodec.training.config import TrainConfig, load_config  # noqa: E402
from aecodec.training.data import open_tiles  # noqa: E402
from aecodec.training.model import Codec  # noqa: E402

torch.set_num_threads(1)
CPU = torch.device("cpu")


@pytest.fixture
def cfg(started: tuple[TrainConfig, Path]) -> TrainConfig:  # noqa: F811
    """From a model with a predictor."""
    first = dataclasses.replace(started[0], model=SMALL, batch=4, steps=1)
    predict.run(first, 8, CPU)
    return dataclasses.replace(
        first, start_from=str(Path(first.out) / "best.safetensors"),
        out=str(started[1] / "adapted"), steps=60, adam_lr=5e-4, predictor_lr=5e-4,
    )  # fmt: skip


def coded_pool(
    cfg: TrainConfig, model: Codec, steps: tuple[int, ...] = adapt.LAST
) -> adapt.Pool:  # fmt: skip
    tiles = open_tiles(Path(cfg.data), Path(cfg.cache))
    return adapt.code_pool(model, tiles, cfg, 16, steps=steps)


@pytest.mark.parametrize("steps", [adapt.LAST, adapt.ALL])
def test_a_pool_holds_what_the_codec_codes(steps: tuple[int, ...], cfg: TrainConfig) -> None:
    model = adapt.open_run(cfg, CPU).model
    found: list[torch.Tensor] = []
    code = model.symbols.bits

    def seen(k: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        found.append(code(k, index))
        return found[-1]

    model.symbols.bits = seen
    pool = coded_pool(cfg, model, steps)
    with torch.no_grad():
        assert torch.allclose(adapt.bits(model, pool, steps), pool.before)
        assert float(adapt.loss(model, pool, steps)) == pytest.approx(0.0, abs=1e-6)
    # The first batch was coded whole, all four steps, and then those that learn.
    whole = next(bits for bits in found if bits.dim() == 5 and len(bits) == 16).split(4)
    coded = pool.coded[:4].float()[..., None, None]
    own = sum((whole[step] * adapt.take(coded, step)).sum((0, 2, 3, 4)) for step in steps)
    assert torch.allclose(own, pool.before[:4], rtol=1e-3)


@pytest.mark.parametrize(
    ("whole", "own"),
    [
        (False, ("prior.enter.3.", "predictor.nets.3.")),
        (True, ("prior.enter.0.", "prior.blocks.", "prior.scale.", "h_s.", "predictor.nets.")),
    ],
)
def test_what_learns_gets_cheaper_and_nothing_else_moves(
    whole: bool, own: tuple[str, ...], cfg: TrainConfig
) -> None:
    start = adapt.open_run(dataclasses.replace(cfg, out=cfg.out + ".start"), CPU).model
    steps = adapt.ALL if whole else adapt.LAST
    pool = coded_pool(cfg, start, steps)
    handler = signal.getsignal(signal.SIGTERM)
    adapt.run(cfg, 16, CPU, whole=whole)
    assert signal.getsignal(signal.SIGTERM) is handler  # this process can be ended again
    before, after = load_file(cfg.start_from), load_file(Path(cfg.out) / "best.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(
        name.startswith((*own, *(("prior.", "q_prior.") if whole else ()))) for name in moved
    )
    for part in own:
        assert [name for name in moved if name.startswith(part)], part
    end = adapt.open_run(cfg, CPU, whole).model.eval()
    with torch.no_grad():
        assert float(adapt.loss(end, pool, steps)) < -0.001


def test_without_a_predictor_in_the_last_step_it_is_refused(cfg: TrainConfig) -> None:
    other = dataclasses.replace(cfg, model=dataclasses.replace(SMALL, predictor_steps=(2,)))
    with pytest.raises(ValueError, match="last coding step"):
        adapt.open_run(other, CPU)


def test_the_committed_configuration_is_the_default_models() -> None:
    configs = Path(adapt.__file__).parent / "configs"
    own = load_config(configs / "adapt_luma.toml")
    assert own.model == load_config(configs / "luma.toml").model
