"""Training pictures: a folder or tar files -> one memory-mapped cache -> random crops.

Pictures are decoded once into a cache of equal tiles (uint8, N x T x T x 3), because decoding
AVIF or PNG for every crop would take longer than a training step on a small machine.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from aecodec.training.lapped import lap, lapped_matrix
from aecodec.training.synthetic import synthetic_patch

TILE = 512
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff"}
Pixels = npt.NDArray[np.uint8]


def _blobs(source: Path) -> Iterator[bytes]:
    """Encoded pictures of a folder (recursively; tar files in it are opened) or of one tar."""
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    for file in files:
        if file.suffix == ".tar":
            with tarfile.open(file) as tar:
                for member in tar:
                    stream = tar.extractfile(member) if member.isfile() else None
                    if stream is not None and Path(member.name).suffix.lower() in SUFFIXES:
                        yield stream.read()
        elif file.suffix.lower() in SUFFIXES:
            yield file.read_bytes()


def _tiles(blob: bytes) -> list[Pixels]:
    """Decode one picture into TILE x TILE tiles; smaller pictures are dropped."""
    with Image.open(io.BytesIO(blob)) as image:
        pixels = np.asarray(image.convert("RGB"))
    rows, cols = pixels.shape[0] // TILE, pixels.shape[1] // TILE
    return [
        pixels[r * TILE : (r + 1) * TILE, c * TILE : (c + 1) * TILE]
        for r in range(rows)
        for c in range(cols)
    ]


def open_tiles(source: Path, cache: Path) -> Pixels:
    """The (N, TILE, TILE, 3) tiles of `source`, decoded into the file `cache` if not there yet."""
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        part = cache.with_suffix(".part")
        count = 0
        with part.open("wb") as out, ThreadPoolExecutor() as pool:
            for tiles in pool.map(_tiles, _blobs(source)):
                for tile in tiles:
                    out.write(np.ascontiguousarray(tile).tobytes())
                    count += 1
        if count == 0:
            part.unlink()
            raise ValueError(f"{source}: no picture of at least {TILE}x{TILE} pixels")
        part.rename(cache)
    return np.fromfile(cache, np.uint8).reshape(-1, TILE, TILE, 3)


def sample_batch(
    tiles: Pixels,
    rng: np.random.Generator,
    batch: int,
    crop: int,
    grey_share: float,
    synthetic_share: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Random crops, flips and transposes: x (B,3,crop,crop) float 0..255, grey (B,) bool.

    A share of the crops is made colour-free, so that the model learns to code grey pictures
    without the chroma channels; another share is replaced by tiles that are not photographs.
    """
    out = np.empty((batch, crop, crop, 3), np.uint8)
    # A generator of its own, so that the photographic crops are the same whatever the share.
    maker = rng.spawn(1)[0]
    made = maker.random(batch) < synthetic_share
    grey = rng.random(batch) < grey_share
    for i in range(batch):
        tile = tiles[rng.integers(len(tiles))]
        r, c = rng.integers(0, TILE - crop + 1, 2)
        patch = tile[r : r + crop, c : c + crop]
        if rng.random() < 0.5:
            patch = patch[:, ::-1]
        if rng.random() < 0.25:
            patch = patch[::-1]
        if rng.random() < 0.25:
            patch = patch.transpose(1, 0, 2)
        if made[i]:
            patch = synthetic_patch(maker, crop, tile)
        if grey[i]:
            patch = np.repeat(patch.mean(2, keepdims=True).round().astype(np.uint8), 3, 2)
        out[i] = patch
    x = torch.from_numpy(out).permute(0, 3, 1, 2).float()
    return x, torch.from_numpy(grey)


def open_pictures(folder: Path, multiple: int = 64) -> list[Tensor]:
    """Validation pictures as (3,H,W) float 0..255, cropped to a multiple of the hyper-latent."""
    pictures = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in SUFFIXES:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))
            h, w = (n // multiple * multiple for n in pixels.shape[:2])
            pictures.append(torch.from_numpy(pixels[:h, :w].copy()).permute(2, 0, 1).float())
    return pictures


# Orthonormal opponent colours: luma along grey, then red-blue, then green-magenta.
OPPONENT = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3.0], [2.0], [6.0]])


def block_components(
    tiles: Pixels, count: int, rng: np.random.Generator, pictures: int = 1500, each: int = 100
) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components of lapped 16x16 blocks, luma and chroma apart.

    Returns basis (768, count) orthonormal, in the channel order of pixel-unshuffle by 16;
    deviations (count,); luma flags (count,) of 1.0 or 0.0. Keeping the two kinds apart costs
    under 1 % of the coding gain and lets grey pictures skip every chroma channel.
    """
    rows = []
    n, overlap = TILE // 16, lapped_matrix()
    for i in rng.choice(len(tiles), min(pictures, len(tiles)), replace=False):
        x = torch.from_numpy(tiles[i].astype(np.float32) - 128.0).permute(2, 0, 1)[None]
        x = F.pixel_unshuffle(lap(x, overlap), 16)
        blocks = x[0].reshape(3, 256, n * n).permute(2, 0, 1).numpy()
        rows.append(blocks[rng.choice(n * n, each, replace=False)])
    opponent = np.einsum("ij,njk->nik", OPPONENT, np.concatenate(rows)).reshape(-1, 768)
    cov = opponent.T @ opponent / len(opponent)
    cov[:256, 256:], cov[256:, :256] = 0.0, 0.0
    values, vectors = np.linalg.eigh(cov)
    order = np.argsort(values)[::-1][:count]
    kept = vectors[:, order].reshape(3, 256, count)
    basis = np.einsum("ij,ikm->jkm", OPPONENT, kept).reshape(768, count)
    luma = (np.square(kept[0]).sum(0) > 0.5).astype(np.float32)
    deviation = np.sqrt(np.maximum(values[order], 0.0))
    return (
        torch.from_numpy(basis).float(),
        torch.from_numpy(deviation).float(),
        torch.from_numpy(luma),
    )
