"""Training tiles that are not photographs, and their place in a batch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from aecodec.training import data, synthetic  # noqa: E402

PHOTO = np.random.default_rng(5).integers(0, 256, (512, 512, 3), dtype=np.uint8)
TILES = np.stack([PHOTO, PHOTO[::-1]])


@pytest.mark.parametrize("kind", synthetic.KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("size", [16, 64, 256])
def test_every_kind_makes_tiles_of_any_size(kind: synthetic.Kind, size: int) -> None:
    for seed in range(12):
        small = PHOTO if seed else PHOTO[:10, :20]  # a photograph smaller than the tile
        tile = kind(np.random.default_rng(seed), size, small)
        assert (tile.shape, tile.dtype) == ((size, size, 3), np.uint8)


def test_the_same_generator_gives_the_same_tiles() -> None:
    one, two = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(40):
        tile = synthetic.synthetic_patch(one, 64, PHOTO)
        assert np.array_equal(tile, synthetic.synthetic_patch(two, 64, PHOTO))


def test_every_kind_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def note(kind: synthetic.Kind) -> synthetic.Kind:
        def tile(rng: np.random.Generator, size: int, photo: data.Pixels) -> data.Pixels:
            seen.add(kind)
            return kind(rng, size, photo)

        return tile

    kinds = dict(synthetic.KINDS)
    monkeypatch.setattr(synthetic, "KINDS", {note(kind): share for kind, share in kinds.items()})
    rng = np.random.default_rng(0)
    for _ in range(300):
        synthetic.synthetic_patch(rng, 32, PHOTO)
    assert seen == set(kinds)


def batch(share: float, size: int = 40) -> torch.Tensor:
    rng = np.random.default_rng(1)
    x = data.sample_batch(TILES, rng, size, 64, 0.1, share)[0]
    assert rng.integers(1 << 40) == batch_end(size)  # later draws of the caller are the same, too
    return x


def batch_end(size: int) -> int:
    """What the caller's generator gives after a batch of photographs alone."""
    rng = np.random.default_rng(1)
    rng.random(size)
    for _ in range(size):
        rng.integers(len(TILES))
        rng.integers(0, data.TILE - 64 + 1, 2)
        rng.random(3)
    return int(rng.integers(1 << 40))


def test_photographs_in_a_batch_do_not_depend_on_the_share() -> None:
    photographs, mixed = batch(0.0), batch(0.3)
    same = (photographs == mixed).all(3).all(2).all(1)
    assert 0 < (~same).sum() < 40
