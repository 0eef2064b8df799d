"""Finding and verifying models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from aecodec import weights
from aecodec.errors import ModelError


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the default model that is found first and was not opened yet."""
    source = weights.available()[weights.id_of()]
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    (tmp_path / weights.DEFAULT).write_text(source.name + "\n")
    monkeypatch.setenv("AECODEC_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(weights, "_open", {})
    return folder


def test_the_default_model_is_installed_and_verifies() -> None:
    model = weights.open_weights(weights.id_of())
    assert model.id.hex() == weights.id_of()
    assert model.manifest["licence"] == "Apache-2.0"


def test_the_variable_goes_before_the_installed_weights(copied: Path) -> None:
    assert weights.available()[copied.name] == copied
    assert weights.open_weights(copied.name).folder == copied


def test_a_model_is_opened_once() -> None:
    assert weights.open_weights(weights.id_of()) is weights.open_weights(weights.id_of())


def test_an_unknown_model_is_named_with_the_installed_ones() -> None:
    with pytest.raises(ModelError, match=f"needs model 00000000.*{weights.id_of()}"):
        weights.open_weights("00000000")


@pytest.mark.parametrize("name", [weights.STORE, "synthesis_0.onnx"])
def test_a_damaged_file_of_a_model_is_named(copied: Path, name: str) -> None:
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(ModelError, match=f"{name} is damaged"):
        weights.open_weights(copied.name)


def test_a_missing_file_of_a_model_is_named(copied: Path) -> None:
    (copied / "prior.onnx").unlink()
    with pytest.raises(ModelError, match=r"prior.onnx is missing"):
        weights.open_weights(copied.name)


def test_a_model_under_another_name_is_refused(copied: Path) -> None:
    other = copied.with_name("0123abcd")
    copied.rename(other)
    with pytest.raises(ModelError, match="not its hash"):
        weights.open_weights("0123abcd")


def test_an_unreadable_manifest_is_named(copied: Path) -> None:
    (copied / weights.MANIFEST).write_text("{")
    with pytest.raises(ModelError, match="manifest"):
        weights.open_weights(copied.name)


def test_without_any_weights_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "search_path", lambda: [tmp_path])
    with pytest.raises(ModelError, match="AECODEC_WEIGHTS"):
        weights.id_of()


def test_names_stand_for_installed_models() -> None:
    named = weights.names()
    assert {weights.DEFAULT, "small"} <= set(named)
    assert set(named.values()) <= set(weights.available())
    assert weights.id_of("small") == named["small"] != weights.id_of()
    assert weights.id_of(named["small"]) == named["small"]


def test_the_model_is_taken_from_the_argument_then_from_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(weights.VARIABLE, "small")
    assert weights.id_of() == weights.names()["small"]
    assert weights.id_of(weights.DEFAULT) == weights.names()[weights.DEFAULT]


@pytest.mark.parametrize("name", ["large", "00000000", "../weights/small", "small\n"])
def test_a_model_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ModelError, match=r"no model .* is installed \(there are: .*small \("):
        weights.id_of(name)


def test_a_name_is_an_id_in_a_text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "search_path", lambda: [tmp_path])
    (tmp_path / "good").write_text("0123abcd\n")
    (tmp_path / "bad").write_text("../0123abcd\n")
    (tmp_path / "README.md").write_text("0123abcd\n")
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    assert weights.names() == {"good": "0123abcd"}


def test_every_installed_model_says_how_it_was_made() -> None:
    for name, folder in weights.available().items():
        manifest = json.loads((folder / weights.MANIFEST).read_text())
        assert manifest["id"] == name
        assert {"licence", "config", "training", "sha256"} <= set(manifest)


@pytest.mark.parametrize("name", sorted(weights.names()))
def test_released_graphs_are_those_that_are_written_today(name: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("compressai")
    from aecodec.training.regraph import regraph

    released = weights.available()[weights.id_of(name)]
    written = tmp_path / released.name
    shutil.copytree(released, written)
    for graph in written.glob("*.onnx"):
        graph.unlink()
    regraph(written)
    found = {graph.name for graph in written.glob("*.onnx")}
    assert found == {graph.name for graph in released.glob("*.onnx")}
    for graph in found:
        both = (onnx.load_model_from_string((f / graph).read_bytes()) for f in (released, written))
        assert next(both) == next(both)
    assert json.loads((written / weights.MANIFEST).read_text())["sha256"].keys() == (
        json.loads((released / weights.MANIFEST).read_text())["sha256"].keys()
    )
