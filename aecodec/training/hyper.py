"""Tables of hyper-latents by what is around them (`aecodec.hyper`), counted on training tiles.

Rates of training are those of the learned densities of each channel alone; files take less.
`aecodec.training.join` counts them; `python -m aecodec.training.hyper RUN --config FILE` does
nothing else, for a run folder of which all the rest stays.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aecodec.axes import FROM, NONE, guessed_axes, matrix
from aecodec.container import Axes
from aecodec.hyper import PARTS, Contexts
from aecodec.model import open_model
from aecodec.prior import Z_LIMIT
from aecodec.training.config import Config, load_config
from aecodec.training.data import Pixels, open_tiles
from aecodec.training.released import frequencies
from aecodec.weights import id_of

if TYPE_CHECKING:
    from aecodec.training.model import Codec

Array = npt.NDArray[Any]
CLASSES = 12  # of channels, by how often they are not 0
RAREST = 3e-4  # shares below are all alike
VALUES = 2 * Z_LIMIT + 1
# Where groups of means and of mean magnitudes begin: halves, from 2 on whole ones.
MEANS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5)
SIZES = (0.01, 0.26, 0.6, 1.1, 2.1, 3.1, 4.5)
TILES = 600  # that are counted
WEIGHT = 4.0  # counts that a table takes over from the tables of all its neighbours


def groups(starts: tuple[float, ...]) -> Array:
    """The group of every magnitude of a mean in 1 / PARTS, up to Z_LIMIT."""
    return np.digitize(np.arange(Z_LIMIT * PARTS + 1) / PARTS, starts)


class HyperCounts(nn.Module):
    """What was counted: classes (B,Z), and frequencies (tables,VALUES), all 0 before."""

    classes: Tensor
    frequencies: Tensor

    def __init__(self, buckets: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("classes", torch.zeros(buckets, channels))
        empty = self.contexts()
        self.register_buffer("frequencies", torch.zeros(CLASSES * empty.per_class, VALUES))

    def contexts(self) -> Contexts:
        """As the codec has them."""
        classes = self.classes.cpu().numpy().astype(np.int64)
        return Contexts(classes, groups(MEANS), groups(SIZES))

    def tables(self) -> dict[str, Array]:
        """Tensors of a release, none if nothing was counted."""
        if not self.frequencies.any():
            return {}
        contexts = self.contexts()
        frequencies = self.frequencies.cpu().numpy().astype(np.uint32)
        return {
            "z_frequencies": frequencies.ravel(),
            "z_sizes": np.full(len(frequencies), VALUES, np.int32),
            "z_class": contexts.classes.astype(np.uint8),
            "z_by_mean": contexts.by_mean.astype(np.uint8),
            "z_by_size": contexts.by_size.astype(np.uint8),
        }

    @torch.no_grad()
    def fit(self, latents: list[Array]) -> None:
        """Count hyper-latents (N,h,w,Z), an array for each bucket of quality."""
        share = np.stack([(z != 0).mean((0, 1, 2)) for z in latents])
        rarity = np.log(share + RAREST)
        edges = np.linspace(rarity.min(), rarity.max(), CLASSES + 1)[1:-1]
        self.classes.copy_(torch.from_numpy(np.searchsorted(edges, rarity)))
        contexts = self.contexts()
        counts = np.zeros((CLASSES * contexts.per_class, VALUES))
        for bucket, pictures in enumerate(latents):
            for z in pictures:
                for symbols, tables in contexts.batches(z, bucket):
                    at = tables * VALUES + symbols + Z_LIMIT
                    counts += np.bincount(at, minlength=counts.size).reshape(counts.shape)
        self.frequencies.copy_(torch.from_numpy(_tables(counts, contexts).astype(np.float32)))


def _tables(counts: Array, contexts: Contexts) -> Array:
    """A table for each context: where little was counted, those of groups around it."""
    sizes = int(contexts.by_size.max()) + 1
    by_class = counts.reshape(CLASSES, contexts.per_class, VALUES)
    alone, among = by_class[:, 0], by_class[:, 1:].reshape(CLASSES, -1, sizes, VALUES)
    anywhere = _shares(by_class.sum(1), np.full(VALUES, 1 / VALUES), 0.1)
    by_mean = _shares(among.sum(2), anywhere[:, None])
    among = _shares(among, by_mean[:, :, None]).reshape(CLASSES, -1, VALUES)
    shares = np.concatenate([_shares(alone, anywhere)[:, None], among], 1).reshape(-1, VALUES)
    return np.stack([frequencies(row) for row in shares])


def _shares(counts: Array, before: Array, weight: float = WEIGHT) -> Array:
    """Shares of values (...,VALUES) by their counts, and by shares that are believed before."""
    found: Array = (counts + weight * before) / (counts.sum(-1, keepdims=True) + weight)
    return found


@torch.no_grad()
def count_hyper(
    model: Codec, tiles: Pixels, seed: list[int], count: int, encoder: str = ""
) -> None:
    """Count hyper-latents of so many tiles, at a quality in each bucket.

    encoder: name or id of released weights that turn colours as in files, "" for none that are.
    """
    rng, buckets, device = np.random.default_rng(seed), model.cfg.anchors, model.s.device
    found: list[list[Array]] = [[] for _ in range(buckets)]
    for tile in rng.permutation(len(tiles))[:count]:
        pixels = np.ascontiguousarray(tiles[tile])
        axes = guessed_axes(open_model(id_of(encoder)), pixels) if encoder else NONE
        kinds = [_colours(pixels, each).to(device) for each in (NONE, axes)]
        latents: dict[bool, Tensor] = {}
        for bucket in range(buckets):
            where = (bucket + rng.uniform(-0.5, 0.5)) * 100 / (buckets - 1)
            quality = torch.tensor([where], device=device).float().clamp(0.0, 100.0)
            turned = where * 100 >= FROM
            if turned not in latents or model.g_a is not None:  # a linear analysis is one for all
                latents[turned] = model.analysis(kinds[turned], quality)
            z = model.hyper(latents[turned], quality)[0][0].round().clamp(-Z_LIMIT, Z_LIMIT)
            found[bucket].append(z.permute(1, 2, 0).cpu().numpy().astype(np.int32))
    model.hyper_counts.fit([np.stack(each) for each in found])


def _colours(pixels: Pixels, axes: Axes) -> Tensor:
    """A picture (1,3,H,W) of pixels (H,W,3) with its colours turned."""
    x = (pixels.astype(np.float64) - 128) @ matrix(axes).T + axes[3:] + 128
    return torch.from_numpy(x.astype(np.float32)).permute(2, 0, 1)[None]


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--config", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--encoder", default="", help="Released weights that turn colours as in files.")
def main(run: Path, config: Path, encoder: str) -> None:
    """Count hyper-latents of training tiles for the model of the folder RUN."""
    from aecodec.training.model import Codec

    cfg, path = load_config(config), run / "best.safetensors"
    meta = json.loads((run / "best.json").read_text())
    model = Codec(Config(**meta["config"]["model"])).eval()
    model.load_state_dict(load_file(path), strict=False)
    count_hyper(model, open_tiles(Path(cfg.data), Path(cfg.cache)), [cfg.seed, 79], TILES, encoder)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)


if __name__ == "__main__":
    main()
