"""Symbols as training sees them, and the stages that train one part of the codec."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("compressai")
pytest.importorskip("lightning")
pytest.importorskip("onnx")

from safetensors.torch import load_file, save_file  # noqa: E402

from aecodec import quantise  # noqa: E402
from aecodec.training import data, export, join, synthesis, train, widen  # noqa: E402
from aecodec.training.config import Config, TrainConfig  # noqa: E402
from aecodec.training.model import Codec  # noqa: E402
from aecodec.training.pool import Pool  # noqa: E402
from aecodec.training.precision import precision  # noqa: E402
from aecodec.training.stages import freeze_analysis, freeze_synthesis, load_start  # noqa: E402
from aecodec.training.symbols import SCALE_LEVELS, SymbolModel, Tally  # noqa: E402

torch.set_num_threads(1)
LINEAR = Config(
    enc_blocks8=0, enc_blocks16=0, dec_blocks8=0, dec_blocks16=0,
    M=32, Z=8, H=8, W=16, prior_blocks=1, F=8, filter_blocks=1,
)  # fmt: skip


@pytest.fixture
def peaked() -> tuple[torch.Tensor, torch.Tensor, SymbolModel]:
    """Residuals (n,) more peaked than a Gaussian, their indices, and a fitted model."""
    torch.manual_seed(1)
    index = torch.rand(200_000) * 30
    sigma = 0.11 * torch.exp(index * 0.123)
    r = sigma * torch.distributions.Laplace(0.0, 0.7).sample((200_000,))
    model, tally = SymbolModel(), Tally()
    tally.add(model.choose(r, index, 0.5), index, torch.ones(1))
    tally.fit(model)
    return r, index, model


def test_counting_lowers_the_bits_of_what_was_counted(peaked: tuple) -> None:
    r, index, fitted = peaked
    k = fitted.choose(r, index, 0.5)
    plain = SymbolModel().bits(k, index).sum()
    assert fitted.bits(k, index).sum() < 0.98 * plain


def test_indices_learn_what_whole_ones_cost(peaked: tuple) -> None:
    """Files have whole indices: a slope of what lies between them would say something else."""
    r, index, model = peaked
    k, whole = model.choose(r, index, 0.5), index.round().clamp_min(1).requires_grad_()
    model.bits(k, whole).sum().backward()
    with torch.no_grad():
        less, more = (model.bits(k, whole + step) for step in (-1, 1))
    assert torch.allclose(whole.grad, (more - less) / 2, atol=1e-4)


def test_training_chooses_the_symbols_that_the_encoder_chooses(peaked: tuple) -> None:
    r, index, model = peaked
    flat, sizes = export.y_tables(model)
    assert len(sizes) == SCALE_LEVELS
    starts = np.concatenate([[0], np.cumsum(sizes)])
    level = index.round().numpy().astype(np.uint8)
    coded = quantise.quantise(r.numpy(), level, quantise.shifts(flat, starts), 0.5)
    trained = model.choose(r, index, 0.5).numpy().astype(np.int64)
    assert (coded != trained)[level > 0].mean() < 1e-3  # rounding of the frequencies
    assert np.abs(coded - trained).max() <= 1


def test_silent_levels_have_no_tables_and_code_nothing(peaked: tuple) -> None:
    """The encoder's lowest table is the certain zero, and stands for them; others stay."""
    r, index, model = peaked
    flat, sizes = export.y_tables(model)
    model.silent = 7
    fewer, left = export.y_tables(model)
    assert np.array_equal(left, sizes[7:])
    assert np.array_equal(fewer, flat[sizes[:7].sum() :])
    k = model.eval().choose(r, index, 0.5)
    assert not k[index.round() <= 7].any()
    assert k[index.round() == 8].any()
    starts = np.concatenate([[0], np.cumsum(left)])
    level = (index.round() - 7).clamp_min(0).numpy().astype(np.uint8)
    coded = quantise.quantise(r.numpy(), level, quantise.shifts(fewer, starts), 0.5)
    assert (coded != k.numpy()).mean() < 1e-3  # rounding of the frequencies


def test_tables_follow_the_counts(peaked: tuple) -> None:
    r, index, model = peaked
    flat, sizes = export.y_tables(model)
    level = 12
    start = int(np.sum(sizes[:level]))
    zero = flat[start + (sizes[level] - 1) // 2] / 2**24
    counted = SymbolModel().choose(r, index, 0.5)  # as in the fixture
    k = counted[index.round() == level]
    assert zero == pytest.approx(float((k == 0).float().mean()), abs=0.01)


def test_half_precision_only_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert precision("auto", "cuda") == "bf16-mixed"
    for capability, kind in (("AVX512", "bf16-mixed"), ("AVX2", "32-true"), ("DEFAULT", "32-true")):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        assert precision("auto", "cpu") == kind
        assert precision("16-mixed", "cpu") == "16-mixed"


@pytest.fixture
def started(tmp_path: Path) -> tuple[TrainConfig, Path]:
    """A configuration with three smooth pictures, and the weights of a linear start."""
    rng = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    for i in range(3):
        small = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
        picture = small.resize((512, 512), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "data" / f"{i}.png")
    cfg = TrainConfig(
        data=str(tmp_path / "data"), valid="", cache=str(tmp_path / "tiles.u8"),
        out=str(tmp_path / "out"), steps=30, batch=2, crop=64, warmup=2, log_steps=10,
        ema=0.5, deadzone=0.5, precision="32-true", model=LINEAR,
        start_from=str(tmp_path / "start.safetensors"),
    )  # fmt: skip
    torch.manual_seed(0)
    model = Codec(LINEAR)
    tiles = data.open_tiles(Path(cfg.data), Path(cfg.cache))
    model.start_from_blocks(*data.block_components(tiles, LINEAR.M, rng, 3, 500))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, cfg.start_from)
    return cfg, tmp_path


def test_the_synthesis_alone_learns_and_nothing_else_moves(
    started: tuple[TrainConfig, Path],
) -> None:
    cfg, folder = started
    synthesis.run(cfg, 16, torch.device("cpu"))
    before, after = load_file(cfg.start_from), load_file(folder / "out" / "best.safetensors")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(synthesis.PARTS) for name in moved)
    tiles = data.open_tiles(Path(cfg.data), Path(cfg.cache))
    losses = []
    for state in (before, after):
        model = Codec(LINEAR)
        model.load_state_dict(state)
        model.deadzone = cfg.deadzone
        pool = synthesis.code_pool(model, tiles, cfg, 16)
        with torch.no_grad():
            losses.append(float(synthesis.distortion(model, pool)))
    assert losses[1] < losses[0]


def test_what_no_filter_restores_is_not_learned_from(started: tuple[TrainConfig, Path]) -> None:
    model = Codec(LINEAR)
    torch.manual_seed(2)
    pixels = (torch.rand(8, 3, 16, 16) * 255).round()
    near = pixels - 128 + torch.randn_like(pixels)
    near[3] = 0.0  # a checkerboard of colours, of which nothing is left
    pool = Pool(near.half(), pixels.to(torch.uint8), torch.full((8,), 50.0))
    assert synthesis.replace_hopeless(model, pool) == 1
    assert torch.equal(pool.x[3], pool.x[0])
    assert torch.equal(pool.source[3], pool.source[0])
    assert torch.equal(pool.x[4:], pixels[4:].to(torch.uint8))
    assert synthesis.replace_hopeless(model, pool) == 0


def test_the_filter_alone_learns_with_more_blocks_than_it_started_from(
    started: tuple[TrainConfig, Path],
) -> None:
    cfg, folder = started
    deeper = dataclasses.replace(LINEAR, filter_blocks=LINEAR.filter_blocks + 2)
    cfg = dataclasses.replace(cfg, linear_lr=0.0, model=deeper)
    tiles = data.open_tiles(Path(cfg.data), Path(cfg.cache))
    state = synthesis.open_run(cfg, torch.device("cpu"))
    pool = synthesis.code_pool(state.model, tiles, cfg, 16)
    assert pool.source.shape == pool.x.shape  # pictures, not latents
    shallow = Codec(LINEAR)
    load_start(shallow.requires_grad_(False), Path(cfg.start_from))
    with torch.no_grad():  # new blocks are identities
        same = [float(synthesis.distortion(m, pool)) for m in (state.model, shallow)]
        assert same[0] == pytest.approx(same[1], rel=1e-5)
    synthesis.run(cfg, 16, torch.device("cpu"))
    before, after = load_file(cfg.start_from), load_file(folder / "out" / "best.safetensors")
    moved = {k for k in before if k in after and not torch.equal(before[k], after[k])}
    assert moved
    assert all(name.startswith("filter.") for name in moved)


def test_structure_counts_where_a_configuration_says_so(started: tuple[TrainConfig, Path]) -> None:
    cfg, folder = started
    found = []
    for eye in (0.0, 1.0):
        out = folder / str(eye)
        here = dataclasses.replace(cfg, linear_lr=0.0, crop=128, steps=4, eye=eye, out=str(out))
        synthesis.run(here, 8, torch.device("cpu"))
        found.append(load_file(out / "best.safetensors"))
    moved = {name for name in found[0] if not torch.equal(found[0][name], found[1][name])}
    assert moved
    assert all(name.startswith("filter.") for name in moved)


def test_the_filter_of_a_band_learns_on_its_qualities_alone(
    started: tuple[TrainConfig, Path],
) -> None:
    """From one filter for all qualities; joined, each band has what its run learned."""
    cfg, folder = started
    shape = dataclasses.replace(LINEAR, filter_bands=2)
    cfg = dataclasses.replace(cfg, linear_lr=0.0, model=shape, quantised_filter=True)
    tiles, cpu = data.open_tiles(Path(cfg.data), Path(cfg.cache)), torch.device("cpu")
    runs = [folder / "low", folder / "high"]
    for band, (out, low, high) in enumerate(zip(runs, (0.0, 42.0), (58.0, 100.0), strict=True)):
        own = dataclasses.replace(cfg, filter_band=band, out=str(out))
        pool = synthesis.code_pool(synthesis.open_run(own, cpu).model, tiles, own, 16)
        assert low <= pool.quality.min() < pool.quality.max() <= high
        synthesis.run(own, 16, cpu)
    states = [load_file(run / "best.safetensors") for run in runs]
    moved = {k for k in states[0] if not torch.equal(states[0][k], states[1][k])}
    assert moved
    assert all(name.startswith("filter.bands.") for name in moved)
    joined = join.join(cfg, runs[0], None, 1.0, runs)
    for name, value in joined.state_dict().items():
        if name.startswith("filter.bands."):
            band = int(name.split(".")[2])
            assert torch.equal(value, states[band][name]), name
    assert all(band.quantised for band in joined.filter)


def test_ranges_of_a_filter_trained_in_floating_point_are_taken_anew(
    started: tuple[TrainConfig, Path],
) -> None:
    """Those from before would cut off what the filter has learned since."""
    cfg, folder = started
    shape = dataclasses.replace(LINEAR, filter_bands=2)
    cfg = dataclasses.replace(cfg, linear_lr=0.0, model=shape)
    cpu, runs = torch.device("cpu"), [str(folder / name) for name in ("eight", "float", "again")]
    start, bands = cfg.start_from, (-1, 1, 1)
    for out, band, eight in zip(runs, bands, (True, False, True), strict=True):
        own = dataclasses.replace(
            cfg, start_from=start, out=out, filter_band=band, quantised_filter=eight
        )
        synthesis.run(own, 16, cpu)
        start = f"{out}/best.safetensors"
    first, floating, again = (load_file(f"{out}/best.safetensors") for out in runs)
    assert first["filter.bands.1.high"].any()
    assert not floating["filter.bands.1.high"].any()
    assert again["filter.bands.1.high"].any()
    for state in (floating, again):  # the other band's stay
        assert torch.equal(state["filter.bands.0.high"], first["filter.bands.0.high"])


def test_a_start_with_smaller_kernels_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(3)
    small = Codec(LINEAR)
    wide = Codec(dataclasses.replace(LINEAR, prior_kernel=5))
    save_file(small.state_dict(), tmp_path / "small.safetensors")
    load_start(wide, tmp_path / "small.safetensors")
    context, common = torch.randn(1, LINEAR.M + 4, 8, 8), torch.randn(1, LINEAR.W, 8, 8)
    with torch.no_grad():
        pairs = zip(small.prior(2, context, common), wide.prior(2, context, common), strict=True)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


def test_a_start_with_parts_of_another_model_is_refused(tmp_path: Path) -> None:
    state = Codec(LINEAR).state_dict() | {"prior.former.weight": torch.zeros(2)}
    save_file(state, tmp_path / "former.safetensors")
    with pytest.raises(ValueError, match=r"former.*not weights of this model: prior.former"):
        load_start(Codec(LINEAR), tmp_path / "former.safetensors")


def test_a_synthesis_run_goes_on_where_it_stopped(started: tuple[TrainConfig, Path]) -> None:
    cfg, folder = started
    cfg = dataclasses.replace(cfg, steps=6)
    synthesis.run(cfg, 8, torch.device("cpu"))
    parts = dataclasses.replace(cfg, out=str(folder / "parts"), minutes=1e-9)
    for _ in range(6):  # every call stops after one step
        synthesis.run(parts, 8, torch.device("cpu"))
    one = torch.load(folder / "out" / "last.ckpt", weights_only=True)
    two = torch.load(folder / "parts" / "last.ckpt", weights_only=True)
    assert one["step"] == two["step"] == 6
    for name, value in one["model"].items():
        assert torch.equal(value, two["model"][name]), name


def test_the_prior_alone_trains_on_true_symbols(started: tuple[TrainConfig, Path]) -> None:
    cfg, folder = started
    cfg = dataclasses.replace(
        cfg, steps=4, hard=True, freeze_analysis=True, freeze_synthesis=True, fit_steps=2
    )
    train.run(cfg, train.Fabric(accelerator="cpu", devices=1, precision="32-true"))
    before = load_file(cfg.start_from)
    after = torch.load(folder / "out" / "last.ckpt", weights_only=True)["model"]
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("prior.") for name in moved)
    assert "symbols.correction" in moved
    fixed = ("filter.", "linear_", "log_gain.", "log_inverse.")
    assert not [name for name in moved if name.startswith(fixed)]


def test_frozen_parts_get_no_gradient() -> None:
    model = Codec(LINEAR)
    freeze_analysis(model)
    freeze_synthesis(model)
    trainable = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert {"h_a", "h_s", "prior"} <= trainable
    assert not trainable & {"linear_a", "linear_s", "filter", "log_gain", "log_inverse"}


def test_more_channels_leave_the_others_as_they_are(started: tuple[TrainConfig, Path]) -> None:
    cfg, _ = started
    torch.manual_seed(0)
    narrow, wide = Codec(LINEAR).eval(), Codec(dataclasses.replace(LINEAR, M=48)).eval()
    weights = load_file(cfg.start_from)
    narrow.load_state_dict(weights)
    tiles = data.open_tiles(Path(cfg.data), Path(cfg.cache))
    widen.widen(weights, wide, tiles)
    rows = wide.linear_a.detach()
    assert torch.allclose(rows @ rows.T, torch.eye(48), atol=1e-4)
    x, grey = data.sample_batch(tiles, np.random.default_rng(3), 2, 64, 0.0)
    quality = torch.tensor([20.0, 95.0])
    for model in (narrow, wide):
        model.hard, model.deadzone = True, 0.5
    with torch.no_grad():
        y_hat = [model.coded_latent(x, quality, grey) for model in (narrow, wide)]
        mse = [(model(x, quality, grey).x_hat - x).square().mean() for model in (narrow, wide)]
    assert torch.allclose(y_hat[0], y_hat[1][:, :32], atol=1e-3)
    assert mse[1] < mse[0]
