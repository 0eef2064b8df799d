"""Give a trained model more latent channels: `python -m aecodec.training.widen IN OUT ...`.

The new channels are the principal components of what the present ones leave, first those that
complete luma, then the strongest of chroma. They come after the others, start with the spread
that they have on the training tiles, and change nothing for the others: what was learned is kept.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from aecodec.training.config import load_config
from aecodec.training.data import Pixels, block_components, open_tiles
from aecodec.training.model import Codec
from aecodec.training.symbols import SCALE_STEP

LUMA = 256  # components of a 16x16 block in one colour
ALIKE = 60  # the last channels, whose steps the new ones take over


def leftover_components(
    weights: dict[str, Tensor], tiles: Pixels, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (count, 768) orthogonal to linear_a, their deviations and luma flags, (count,) each."""
    basis, deviation, luma = block_components(tiles, 768, rng, 900, 60)
    taken, _ = torch.linalg.qr(weights["linear_a"].double().T)
    missing = min(count, LUMA - int(weights["grey_mask"].sum()))
    rows, deviations, flags = [], [], []
    for flag, wanted in ((1.0, missing), (0.0, count - missing)):
        kind = luma == flag
        scaled = (basis * deviation)[:, kind].double()
        u, s, _ = torch.linalg.svd(scaled - taken @ (taken.T @ scaled), full_matrices=False)
        rows.append(u[:, :wanted].T)
        deviations.append(s[:wanted])
        flags.append(torch.full((wanted,), flag))
        taken = torch.cat([taken, u[:, :wanted]], 1)
    order = torch.argsort(torch.cat(deviations), descending=True)
    return (
        torch.cat(rows)[order].float(),
        torch.cat(deviations)[order].float(),
        torch.cat(flags)[order],
    )


def widen(weights: dict[str, Tensor], model: Codec, tiles: Pixels) -> None:
    """Load `weights` of a narrower model into `model`; what it has more of starts afresh."""
    old, new = len(weights["s"]), model.cfg.M
    rng = np.random.default_rng(1)
    rows, deviation, luma = leftover_components(weights, tiles, new - old, rng)
    s = 2.0 ** torch.round(torch.log2(deviation.clamp(4.0, 256.0)))

    def steps(anchors: Tensor) -> Tensor:
        alike = anchors[:, -ALIKE:].mean(1, keepdim=True)
        return torch.cat([anchors, alike.expand(-1, new - old)], 1)

    worth = weights.get("worth", torch.ones(old))

    def columns(matrix: Tensor) -> Tensor:  # what else enters the prior stays behind
        added = torch.zeros(len(matrix), new - old)
        return torch.cat([matrix[:, :old], added, matrix[:, old:]], 1)

    added = {
        "linear_a": torch.cat([weights["linear_a"], rows]),
        "linear_s": torch.cat([weights["linear_s"], rows.T], 1),
        "s": torch.cat([weights["s"], s]),
        "grey_mask": torch.cat([weights["grey_mask"], luma]),
        "log_gain.anchors": steps(weights["log_gain.anchors"]),
        "log_inverse.anchors": steps(weights["log_inverse.anchors"]),
        "worth": steps(worth[None])[0],
        "h_a.stem.weight": columns(weights["h_a.stem.weight"]),
    }
    for k in range(4):
        name = f"prior.enter.{k}.weight"
        added[name] = columns(weights[name])
    for part, bias in (("mean", torch.zeros_like(s)), ("scale", torch.log(deviation / s))):
        weight = weights[f"prior.{part}.conv.weight"]
        rows_of_zeros = torch.zeros(new - old, weight.shape[1])
        added[f"prior.{part}.conv.weight"] = torch.cat([weight, rows_of_zeros])
        bias = torch.cat([weights[f"prior.{part}.conv.bias"], bias / SCALE_STEP])
        added[f"prior.{part}.conv.bias"] = bias
    model.load_state_dict(weights | added, strict=False)


@click.command()
@click.argument("narrow", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--config", "path", type=click.Path(exists=True, path_type=Path), required=True)
def main(narrow: Path, out: Path, path: Path) -> None:
    """Write the weights file OUT: those of NARROW, with the channels of the configuration."""
    cfg = load_config(path)
    model = Codec(cfg.model)
    widen(load_file(narrow), model, open_tiles(Path(cfg.data), Path(cfg.cache)))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out)


if __name__ == "__main__":
    main()
