"""Training, resuming and export on a model small enough for a test."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("compressai")
pytest.importorskip("lightning")
pytest.importorskip("onnx")

from safetensors.torch import load_file  # noqa: E402

from aecodec.quantise import STRENGTH  # noqa: E402
from aecodec.training import data, export, layers, quarters, reopen, train  # noqa: E402
from aecodec.training.config import Config, TrainConfig, load_config  # noqa: E402
from aecodec.training.filter import Filter  # noqa: E402
from aecodec.training.layers import Bottleneck  # noqa: E402
from aecodec.training.loss import rate_distortion  # noqa: E402
from aecodec.training.model import Codec  # noqa: E402

torch.set_num_threads(1)  # such small layers only lose by sharing
TINY = Config(
    C8=16, C16=16, enc_blocks8=1, enc_blocks16=1, dec_blocks8=1, dec_blocks16=1,
    M=32, Z=8, H=8, W=16, prior_blocks=1, filter_blocks=1, silent_levels=3,
)  # fmt: skip


def smooth_picture(seed: int, size: int) -> np.ndarray:
    """A colourful picture with structure at several scales."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (size // 16, size // 16, 3), dtype=np.uint8))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("training")
    (root / "data").mkdir()
    (root / "valid").mkdir()
    for i in range(3):
        Image.fromarray(smooth_picture(i, 512)).save(root / "data" / f"{i}.png")
    Image.fromarray(smooth_picture(9, 128)).save(root / "valid" / "v.png")
    return root


def config(folder: Path, out: str, **changes: object) -> TrainConfig:
    base = TrainConfig(
        data=str(folder / "data"), valid=str(folder / "valid"), cache=str(folder / "tiles.u8"),
        out=str(folder / out), steps=6, batch=2, crop=64, warmup=2, log_steps=2,
        precision="32-true", model=TINY,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def fabric() -> train.Fabric:
    return train.Fabric(accelerator="cpu", devices=1, precision="32-true")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    train.run(config(folder, "whole", eight_bit_prior=True), fabric())
    return folder / "whole"


def test_a_run_logs_validates_and_keeps_the_best(trained: Path) -> None:
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert [r["step"] for r in log if "loss" in r] == [2, 4, 6]
    assert {"loss", "bpp", "psnr", "minutes_left"} <= set(log[0])
    assert "score" in log[-1]["valid"]
    assert (trained / "best.safetensors").exists()


def test_resuming_gives_the_same_weights_as_not_stopping(folder: Path, trained: Path) -> None:
    # Every call stops after one step.
    first = config(folder, "parts", minutes=1e-9, valid="", eight_bit_prior=True)
    for _ in range(6):
        train.run(first, fabric())
    one = torch.load(trained / "last.ckpt", weights_only=True)
    two = torch.load(folder / "parts" / "last.ckpt", weights_only=True)
    assert one["step"] == two["step"] == 6
    for name, value in one["model"].items():
        assert torch.equal(value, two["model"][name]), name


@pytest.fixture(scope="module")
def exported(folder: Path, trained: Path) -> Path:
    command = [sys.executable, "-m", "aecodec.training.export", str(trained), "-o"]
    command += [str(folder / "weights"), "--data", "noise", "--recipe", "test"]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "weights"


def test_export_says_where_the_weights_come_from(exported: Path) -> None:
    name = (exported / "default").read_text().strip()
    manifest = json.loads((exported / name / "manifest.json").read_text())
    assert manifest["id"] == name
    assert manifest["licence"] == "Apache-2.0"
    assert {"data", "recipe", "steps", "commit", "validation"} <= set(manifest["training"])


def test_the_exported_model_codes_what_the_trained_one_estimates(
    trained: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import aecodec
    from aecodec import signs

    monkeypatch.setenv("AECODEC_WEIGHTS", str(exported))
    # Training knows nothing of hidden signs, which change some symbols by one: here none is.
    monkeypatch.setattr(signs, "layout", lambda *given: None)
    pixels = smooth_picture(4, 256)
    model = Codec(TINY)
    model.load_state_dict(load_file(trained / "best.safetensors"))
    model.eval()
    model.set_quantised(True)
    model.deadzone, model.hard = STRENGTH, True
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float()
    for quality in (10.0, 90.0):
        with torch.no_grad():
            out = model(x, torch.tensor([quality]), torch.zeros(1, dtype=torch.bool))
        coded = aecodec.encode(pixels, quality, effort=2)  # chosen once, as in training
        estimate = float(out.bits_y + out.bits_z) / 8
        assert len(coded) == pytest.approx(estimate + 32, rel=0.05, abs=24)
        back = np.asarray(aecodec.decode(coded), float)
        expected = out.x_hat.clamp(0, 255)[0].permute(1, 2, 0).numpy()
        assert np.abs(back - expected).mean() < 1.0


def test_a_release_can_be_trained_further(trained: Path, exported: Path, tmp_path: Path) -> None:
    release = exported / (exported / "default").read_text().strip()
    subprocess.run(
        [sys.executable, "-m", "aecodec.training.reopen", str(release), str(tmp_path)],
        check=True, capture_output=True,
    )  # fmt: skip
    models = [Codec(TINY), Codec(TINY)]
    for model, run in zip(models, (trained, tmp_path), strict=True):
        model.load_state_dict(load_file(run / "best.safetensors"))
        model.set_quantised(True)
        model.eval()
        model.deadzone, model.hard = STRENGTH, True
    x = torch.from_numpy(smooth_picture(4, 128).copy()).permute(2, 0, 1)[None].float()
    quality, grey = torch.tensor([40.0]), torch.zeros(1, dtype=torch.bool)
    with torch.no_grad():
        first, again = (model(x, quality, grey) for model in models)
    assert (first.x_hat - again.x_hat).abs().mean() < 0.2
    assert float(again.bits_y) == pytest.approx(float(first.bits_y), rel=0.01)
    assert float(again.bits_z) == pytest.approx(float(first.bits_z), rel=0.01)
    # Integers, tables and weights of a filter in 8 bits come back as they were.
    stored, model = reopen.load_file(release / "model.safetensors"), models[1]
    collected = export.collect(model)
    for name in (
        "h_s.stem.weight",
        "tables.gain",
        "tables.shift",
        "tables.y_sizes",
        "tables.z_frequencies",
        "linear_s",
    ):
        assert np.array_equal(stored[name], collected[name]), name


@pytest.mark.parametrize("last", [False, True])
def test_an_eight_bit_filter_comes_back_exactly(last: bool) -> None:
    torch.manual_seed(3)
    shape = Config(F=8, filter_layers=1, filter_blocks=2, filter_slope=0.0, filter_last_eight=last)
    before, after = (Filter(shape) for _ in range(2))
    for p in before.parameters():
        torch.nn.init.normal_(p)
    before.low.copy_(-torch.rand(8 + last) * 3)
    before.high.copy_(torch.rand(8 + last) * 5 + 1)
    stored = export.filter_tensors(before)
    assert not np.array_equal(stored["last.weight"], before.last.weight.detach().half().numpy())
    state = reopen.filter_state(stored, after) | {
        "factors.anchors": before.factors.anchors.detach()
    }
    after.load_state_dict({k: torch.from_numpy(np.array(v, np.float32)) for k, v in state.items()})
    again = export.filter_tensors(after)
    for name, array in export.filter_tensors(before).items():
        if array.dtype.kind == "i" or name in ("first.weight", "last.weight", "last.bias"):
            assert np.array_equal(array, again[name]), name


def test_hyper_latents_cost_what_compressai_says() -> None:
    from compressai.entropy_models import EntropyBottleneck

    torch.manual_seed(3)
    theirs, ours = EntropyBottleneck(6, filters=(3, 3)), Bottleneck(6, filters=(3, 3))
    ours.load_state_dict(theirs.state_dict())
    x = 3 * torch.randn(2, 6, 4, 5)
    for training in (False, True):
        results = []
        for model in (theirs, ours):
            torch.manual_seed(4)
            results.append(model(x, training=training))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_linear_start_is_a_codec_already(folder: Path) -> None:
    tiles = data.open_tiles(folder / "data", folder / "tiles.u8")
    model = Codec(TINY)
    rng = np.random.default_rng(0)
    model.start_from_blocks(*data.block_components(tiles, TINY.M, rng, 3, 500))
    x, grey = data.sample_batch(tiles, rng, 2, 128, 0.0)
    loss = rate_distortion(model(x, torch.tensor([70.0, 70.0]), grey), x,
                           torch.tensor([70.0, 70.0]), TINY)  # fmt: skip
    assert loss.mse.max() < 200  # a grey picture would have thousands


def test_every_element_is_coded_in_exactly_one_step() -> None:
    x = torch.rand(2, 8, 4, 6, requires_grad=True)
    again = torch.zeros(2, 8, 4, 6)
    for step in range(4):
        quarter = quarters.take(x, step)
        assert quarter.shape == (4, 2, 2, 2, 3)  # of every position a quarter of the channels
        assert torch.equal(quarters.take(again, step), torch.zeros_like(quarter))
        again = quarters.put(again, quarter, step)
    assert torch.equal(again, x)
    (again * torch.arange(8.0)[:, None, None]).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.arange(8.0)[:, None, None].expand(2, 8, 4, 6))


def test_vectors_of_channels_are_taken_like_latents() -> None:
    v = torch.rand(2, 8, 1, 1)
    for step in range(4):
        full = quarters.take(v.expand(2, 8, 4, 6).contiguous(), step)
        assert torch.equal(quarters.take(v, step).expand_as(full), full)


def test_fake_quantisation_stays_close_and_within_the_bound() -> None:
    torch.manual_seed(0)
    layer = layers.Exact(layers.Pointwise(300, 64), "sum")
    x = torch.randint(-1024, 1024, (1, 300, 4, 4)) / layers.GRID
    plain = layer(x)
    layer.quantised = True
    assert (layer(x) - plain).abs().max() < 0.5  # of a range of 32
    w, b, _ = layers.fake_fixed(layer.conv.weight, layer.conv.bias, layers.LIMIT, layers.GRID)
    assert (w.abs().sum(1) * layers.LIMIT * layers.GRID + b.abs()).max() < layers.EXACT_SUM


def test_configuration_refuses_unknown_names(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("stepz = 3\n")
    with pytest.raises(TypeError, match="stepz"):
        load_config(file)


def test_data_refuses_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture"):
        data.open_tiles(tmp_path, tmp_path / "cache.u8")


def test_frequencies_sum_and_are_never_zero() -> None:
    counts = export.frequencies(np.array([0.0, 1e-12, 1.0, 3.0]))
    assert counts.sum() == 1 << 24
    assert counts.min() >= 1
