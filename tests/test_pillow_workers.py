"""Opened .aec files in worker processes, where Datasets read them; with the real codec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import aecodec.pillow_plugin  # noqa: F401 - registers the format


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    made = []
    for number in range(4):
        row = np.linspace(0, 60 * number + 60, 48, dtype=np.uint8)
        made.append(tmp_path / f"{number}.aec")
        Image.fromarray(np.tile(row, (32, 1))).convert("RGB").save(made[-1], quality=90)
    return made


class Pictures:
    """What torch.utils.data calls a Dataset."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        with Image.open(self.paths[index]) as image:
            return np.array(image)


@pytest.mark.parametrize("workers", [0, 2])
def test_in_a_dataset(paths: list[Path], workers: int) -> None:
    data = pytest.importorskip("torch.utils.data")
    pictures = Pictures(paths)
    expected = [pictures[n] for n in range(4)]  # decoded here first: models are open when forking
    loader = data.DataLoader(
        pictures, batch_size=2, num_workers=workers, timeout=100 if workers else 0
    )
    loaded = np.concatenate([batch.numpy() for batch in loader])
    assert loaded.shape == (4, 32, 48, 3)
    assert np.abs(loaded.astype(int) - np.stack(expected).astype(int)).max() <= 1


def test_images_that_are_not_loaded_yet_survive_closing_in_any_order(paths: list[Path]) -> None:
    images = [Image.open(path) for path in paths]
    for image in reversed(images):
        assert image.convert("L").size == (48, 32)
        image.close()
