"""The scripts in examples/ do what they say, run as their readers run them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import synthetic
from PIL import Image

import aecodec

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
CROP = Path(__file__).parent / "data" / "crop.png"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A script of the folder in a process of its own."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "AECODEC_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def module(name: str) -> ModuleType:
    """A script of the folder as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    """Two crops of one photograph, one of them as .aec, and pictures that are no photographs."""
    folder = tmp_path / "gallery"
    (folder / "deep").mkdir(parents=True)
    crop = Image.open(CROP)
    crop.crop((0, 0, 192, 160)).save(tmp_path / "query.png")
    crop.crop((16, 0, 208, 160)).save(folder / "near.png")
    data = aecodec.encode(crop.crop((0, 32, 192, 192)), 30)
    (folder / "deep" / "below.aec").write_bytes(data)
    Image.fromarray(synthetic.picture("RGB", 192, 160).pixels).save(folder / "drawn.png")
    Image.fromarray(synthetic.plane(192, 160, 2)).save(folder / "grey.png")
    Image.new("RGB", (192, 160), (200, 30, 40)).save(folder / "flat.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


def test_crops_of_one_picture_are_nearer_than_other_pictures(gallery: Path) -> None:
    done = run("similar_pictures.py", gallery.parent / "query.png", gallery, "-n", 4)
    assert done.returncode == 0, done.stderr
    lines = [line.split("  ", 1) for line in done.stdout.splitlines()]
    names = [Path(name).name for _, name in lines]
    assert names[:2] == ["near.png", "below.aec"]
    assert len(names) == 4
    similarity = [float(value) for value, _ in lines]
    assert similarity == sorted(similarity, reverse=True)
    assert "broken.png" in done.stderr
    assert "notes.txt" not in done.stderr


def test_a_picture_is_most_similar_to_itself_and_not_listed(gallery: Path) -> None:
    similar = module("similar_pictures")
    first = similar.read(gallery / "near.png")
    assert float(first @ first) == pytest.approx(1)
    coarse = similar.features(aecodec.latents(Image.open(gallery / "near.png"), 25))
    # The quality of a file matters less than what is in it.
    assert float(first @ coarse) > float(first @ similar.read(gallery / "deep" / "below.aec"))
    done = run("similar_pictures.py", gallery / "near.png", gallery)
    assert "near.png" not in done.stdout


def test_a_query_that_is_no_picture_is_one_line(gallery: Path) -> None:
    done = run("similar_pictures.py", gallery / "broken.png", gallery)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "broken.png" in done.stderr


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Five small pictures, two of them with one stem, and one file that is none."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "a.jpg", "b.png", "deep/c.png", "deep/d.webp")):
        pixels = synthetic.picture("RGB", 40 + 16 * number, 48).pixels
        Image.fromarray(pixels).save(folder / name)
    (folder / "bad.png").write_bytes(CROP.read_bytes()[:2000])
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


GOOD = ["a.jpg.aec", "a.png.aec", "b.png.aec", "deep/c.png.aec", "deep/d.webp.aec"]


def _models_opened() -> int:
    from aecodec import model

    misses: int = model._open_model.cache_info().misses
    return misses


def test_a_tree_on_two_workers(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All good pictures done, the bad one named, nothing half written, weights opened once."""
    distributed: Any = pytest.importorskip("dask.distributed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("AECODEC_THREADS", "1")
    example, out = module("compress_tree"), tree.parent / "archive"
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        failed = example.run(client, tree, out, 40)
        assert example.run(client, tree, out, 40).keys() == failed.keys()  # only what is missing
        opened = client.run(_models_opened)
    assert [path.name for path in failed] == ["bad.png"]
    assert "bad.png" in failed[tree / "bad.png"]
    assert files(out) == GOOD
    assert len(opened) == 2
    assert max(opened.values()) == 1
    for name in GOOD:
        source = np.asarray(Image.open(tree / name.removesuffix(".aec")))
        data = (out / name).read_bytes()
        assert np.asarray(aecodec.decode(data)).shape == source.shape
        assert aecodec.info(data).quality == 40


def test_a_tree_from_the_command_line(tree: Path) -> None:
    pytest.importorskip("dask.distributed")
    done = run("compress_tree.py", tree, tree.parent / "archive", "-j", 2)
    assert done.returncode == 1
    assert "bad.png" in done.stderr
    assert "Traceback" not in done.stderr
    assert files(tree.parent / "archive") == GOOD
