"""Steps shaped to the eye: which channels get finer ones, and what encoders make of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose

torch = pytest.importorskip("torch")
pytest.importorskip("compressai")

from safetensors.torch import load_file, save_file  # noqa: E402

from aecodec import cost  # noqa: E402
from aecodec.model import Model, open_model  # noqa: E402
from aecodec.training import shape  # noqa: E402

GREY, GREEN, BLUE = np.array([[1, 1, 1], [1, -2, 1], [-1, 0, 1]], float)


def waves(*parts: tuple[np.ndarray, int, int]) -> np.ndarray:
    """Basis functions (M,3,16,16): a colour times a cosine of so many half cycles down, across."""
    at = (np.arange(16) + 0.5) * np.pi / 16
    return np.stack(
        [
            colour[:, None, None] * np.outer(np.cos(down * at), np.cos(across * at))
            for colour, down, across in parts
        ]
    )


def test_frequencies_of_cosines() -> None:
    basis = waves((GREY, 0, 0), (GREY, 3, 4), (BLUE, 0, 7))
    assert_allclose(shape.frequency(basis), [0, 5, 7], atol=1e-9)
    # Of a mixture, the root mean square.
    both = waves((GREY, 0, 6)) + waves((GREY, 8, 0))
    assert_allclose(shape.frequency(both), np.sqrt((36 + 64) / 2))


def test_coarse_luma_gets_the_finest_steps() -> None:
    """Then finer luma; chroma less than luma, red-blue less than green-magenta."""
    basis = waves(*((colour, f, 0) for colour in (GREY, GREEN, BLUE) for f in (0, 4, 12)))
    luma = np.repeat([True, False, False], 3)
    units = shape.curve(basis, luma).reshape(3, 3)
    assert np.all(np.diff(units, axis=1) < 0)
    assert np.all(np.diff(units, axis=0) < 0)
    assert units[0, 0] > 0 > units[0, 2]


def test_moved_anchors_are_those_of_a_higher_quality() -> None:
    anchors = np.linspace(5.0, -2.0, 8)[:, None] + np.array([0.0, 1.0])
    units = np.broadcast_to(np.array([10.0, -20.0]), (8, 2))
    assert_allclose(shape.moved(anchors, units), anchors + np.array([-0.7, 1.4]))
    bent = np.array([[8.0], [4.0], [3.0]])  # at 0, 50, 100
    assert_allclose(shape.moved(bent, np.full((3, 1), 25.0)).ravel(), [6.0, 3.5, 2.5])


def run_folder(folder: Path, worth: float = 1.0) -> Path:
    """A run whose model has three channels: coarse luma, fine luma, fine red-blue."""
    basis = waves((GREY, 0, 0), (GREY, 12, 0), (BLUE, 12, 0)).reshape(3, 768).T
    inverse = torch.linspace(5, -2, 8)[:, None].repeat(1, 3)
    state = {
        "linear_s": torch.tensor(basis).float(),
        "grey_mask": torch.tensor([1.0, 1.0, 0.0]),
        "log_inverse.anchors": inverse,
        "log_gain.anchors": 0.01 - inverse,
        "worth": torch.full((3,), worth),
    }
    folder.mkdir()
    save_file(
        {name: part.contiguous() for name, part in state.items()}, folder / "best.safetensors"
    )
    (folder / "best.json").write_text(json.dumps({"step": 7, "valid": {"score": -1}}))
    return folder


def test_a_run_with_other_steps(tmp_path: Path) -> None:
    """Both directions of a step change alike; strength says how far; once is enough."""
    before, out = run_folder(tmp_path / "run"), tmp_path / "out"
    result = CliRunner().invoke(shape.main, [str(before), str(out), "--strength", "0.5"])
    assert result.exit_code == 0, result.output
    old, new = (load_file(folder / "best.safetensors") for folder in (before, out))
    finer = old["log_inverse.anchors"] - new["log_inverse.anchors"]
    torch.testing.assert_close(new["log_gain.anchors"] - old["log_gain.anchors"], finer)
    assert torch.all(finer[0].diff() < 0)
    assert finer[0, 0] > 0 > finer[0, 1]
    torch.testing.assert_close(finer[-1] - finer[0], torch.full((3,), 7 / 100 * shape.FINER))
    assert torch.all(new["worth"].diff() < 0)
    assert new["worth"][0] > 1 > new["worth"][1]
    assert json.loads((out / "best.json").read_text()) == {"step": 7}
    again = CliRunner().invoke(shape.main, [str(out), str(tmp_path / "twice")])
    assert again.exit_code == 2
    assert "already" in again.output
    assert not (tmp_path / "twice").exists()


def test_steps_are_shaped_anew_from_what_they_were(tmp_path: Path) -> None:
    """A run that learned on with shaped steps gets others, as if they were its first."""
    before, once, straight = run_folder(tmp_path / "run"), tmp_path / "once", tmp_path / "straight"
    again = tmp_path / "again"
    for arguments in (
        (before, once, "--strength", "0.5"),
        (before, straight, "--strength", "0.9"),
        (once, again, "--strength", "0.9", "--plain", before),
    ):
        result = CliRunner().invoke(shape.main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
    new, wanted = (load_file(folder / "best.safetensors") for folder in (again, straight))
    torch.testing.assert_close(new, wanted)


def test_encoders_weigh_errors_by_their_worth() -> None:
    """A model without `encoder.worth`, as all of before, counts squared errors as they are."""
    model = open_model(threads=1)
    plain = dataclasses.replace(model)
    plain.__dict__["worth"] = np.ones_like(model.worth)
    shares = bits_per_step(model) / bits_per_step(plain)
    assert_allclose(shares, model.worth, rtol=1e-5)


def bits_per_step(model: Model) -> np.ndarray:
    return cost.Cost(model, 5000, grey=False).per_step
