"""What training takes from whole files: the latents that filters learn on, and the score."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import synthetic
from click.testing import CliRunner
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("compressai")
pytest.importorskip("lightning")
pytest.importorskip("onnx")

from aecodec import codec, features, picture, signs, weights  # noqa: E402
from aecodec.entropy import SymbolDecoder  # noqa: E402
from aecodec.model import Model, open_model  # noqa: E402
from aecodec.training import adapt, judge, planned, pool, reopen, train  # noqa: E402
from aecodec.training.config import Config, TrainConfig  # noqa: E402
from aecodec.training.model import Codec  # noqa: E402
from aecodec.training.symbols import BINS, Tally  # noqa: E402

DATA = Path(__file__).parent / "data"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    with Image.open(DATA / "crop.png") as image:
        image.convert("RGB").resize((128, 64)).save(folder / "a.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.mark.parametrize(("grey", "mode"), [(False, "RGB"), (True, "L")])
def test_filters_learn_on_what_a_file_holds(grey: bool, mode: str) -> None:
    source = synthetic.picture(mode, 128, 64)
    x = torch.from_numpy(np.atleast_3d(source.pixels)).permute(2, 0, 1).expand(3, -1, -1)
    found = pool.encoded("default", x.float(), 41.237, grey)
    data = codec.encode_picture(source, 41.24, threads=1, turns=False)
    assert np.array_equal(found.numpy(), features.read_latents(data))


@pytest.fixture(scope="module")
def network() -> Codec:
    """The released weights, reopened, in the arithmetic of the file."""
    model, _ = reopen.reopen(weights.open_weights(weights.id_of()).folder)
    model.set_quantised(True)
    return model.eval()


@pytest.mark.parametrize("grey", [False, True])
def test_symbols_are_learned_and_counted_as_a_file_holds_them(grey: bool, network: Codec) -> None:
    """What the release plans to code: the file's latents, its symbols, and their bits.

    Training knows nothing of hidden signs, which change some symbols by one: here none is.

    At a quality of which the release has a row of its own; between rows its integers round.
    Training computes in floating point: a residual beside a threshold may become the other symbol,
    and what follows from it others again, which a smaller picture shows beyond these bounds.
    """
    source = synthetic.picture("L" if grey else "RGB", 448, 320)
    x = torch.from_numpy(np.atleast_3d(source.pixels)).permute(2, 0, 1).expand(1, 3, -1, -1)
    quality, greys = torch.tensor([42.0]), torch.tensor([grey])
    found = planned.planned(network, "default", x.float(), quality, greys)
    data = codec.encode_picture(source, 42.0, threads=1, turns=False)
    assert np.array_equal(found.y_hat[0].numpy(), features.read_latents(data))

    with mock.patch.object(signs, "layout", return_value=None):
        found = planned.planned(network, "default", x.float(), quality, greys)
        data = codec.encode_picture(source, 42.0, threads=1, turns=False)
        steps = steps_of(data)
    symbols, index = (np.concatenate(column) for column in zip(*steps, strict=True))
    counted = np.bincount(index.astype(int) * BINS + np.minimum(np.abs(symbols), BINS - 1))
    network.tally = Tally()
    with torch.no_grad():
        before = adapt._coded(network, found, quality, greys).before
        coded = torch.where(greys[:, None], network.grey_mask, 1.0)[..., None, None]
        y = found.y * torch.exp(-network.log_gain(quality))
        network.code_latent(y, found.z, quality, coded, found.strength[..., None, None])
    tally, network.tally = network.tally.counts.numpy().reshape(-1, BINS), None
    silent = network.cfg.silent_levels  # a file's level 0 stands for these too
    tally = np.vstack([tally[: silent + 1].sum(0), tally[silent + 1 :]]).ravel()
    counted = np.pad(counted, (0, len(tally) - len(counted)))
    assert np.abs(tally - counted).sum() < 0.005 * counted.sum()
    expected = open_model().y_tables.bits(*steps[3])
    assert float(before) == pytest.approx(expected, rel=0.02)


def steps_of(data: bytes) -> list[tuple[np.ndarray, np.ndarray]]:
    """Symbols and table indices of the four steps of a file of one tile."""
    found, read = [], signs.read

    def seen(coder: SymbolDecoder, index: np.ndarray, model: Model) -> np.ndarray:
        symbols = read(coder, index, model)
        found.append((symbols, index))
        return symbols

    with mock.patch.object(signs, "read", seen):
        features.read_latents(data)
    return found


def test_a_pool_coded_by_released_weights() -> None:
    """Has the same crops as one coded by the network itself, in other symbols."""
    model = open_model(threads=1)
    shape = Config(**model.weights.manifest["config"])
    cfg = TrainConfig(batch=2, crop=64, deadzone=0.5, model=shape)
    network = Codec(cfg.model)
    tiles = np.random.default_rng(1).integers(0, 256, (2, 512, 512, 3), np.uint8)
    own, other = (pool.code_pool(network, tiles, cfg, 3, name) for name in ("", "default"))
    assert own.source.shape == other.source.shape == (4, cfg.model.M, 4, 4)
    assert torch.equal(own.x, other.x)
    assert torch.equal(own.quality, other.quality)
    assert not torch.equal(own.source, other.source)


def test_the_score_is_of_whole_files(pictures: Path) -> None:
    opened = weights.open_weights(weights.id_of())
    path = pictures / "a.png"
    rough, fine = (judge.judge([path], opened, level) for level in (1, 5))
    assert fine["score"] < rough["score"]
    source = picture.load(path)
    data = codec.encode_picture(source, 60, effort=5)
    assert fine["points"][3][:2] == (60.0, 8 * len(data) / (128 * 64))
    psnr = [p for _, _, p in fine["points"]]
    assert psnr == sorted(psnr)
    cfg, costs = Config(**opened.manifest["config"]), []
    for quality, bpp, db in fine["points"]:
        weight = math.exp(cfg.log_lambda(torch.tensor(quality)).item())
        costs.append(math.log2(bpp + weight * 255**2 / 10 ** (db / 10)))
    assert fine["score"] == pytest.approx(sum(costs) / len(costs))
    # Its scores compare with those of training.
    assert tuple(quality for quality, _, _ in fine["points"]) == train.VALID_QUALITIES


def test_the_manifest_keeps_the_result(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = weights.id_of()
    shutil.copytree(weights.available()[name], tmp_path / "weights" / name)
    monkeypatch.setenv("AECODEC_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(weights, "_open", {})
    run = CliRunner().invoke
    assert run(judge.main, [str(pictures), "--effort", "2", "--write"]).exit_code == 2
    done = run(judge.main, [str(pictures), "--write"])
    assert done.exit_code == 0, done.output
    manifest = json.loads((tmp_path / "weights" / name / weights.MANIFEST).read_text())
    assert manifest["training"]["files"] == json.loads(done.output)
    assert manifest["training"]["files"]["pictures"] == 1
    weights.open_weights(name)  # still verifies
