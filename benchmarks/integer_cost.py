"""What the integer probability path costs: the same weights, in floating point and on the grid.

    python benchmarks/integer_cost.py RUN_FOLDER VALIDATION_FOLDER

Estimated bits and PSNR at six qualities, as the trainer validates. "integer" is what the exported
model computes: 8-bit products, integer weights and activations, means in 1/16 of a step, 64 scale
levels. `python -m aecodec.training.reopen weights/ID RUN_FOLDER` makes the folder of a release.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from safetensors.torch import load_file

from aecodec.bench.bd import delta
from aecodec.bench.curves import Curve
from aecodec.quantise import STRENGTH
from aecodec.training.config import Config
from aecodec.training.data import open_pictures
from aecodec.training.eight import points
from aecodec.training.model import Codec
from aecodec.training.train import validate


def load(run: Path, quantised: bool) -> Codec:
    """The best weights of a run, in evaluation mode, with the released encoder's choices."""
    meta = json.loads((run / "best.json").read_text())
    model = Codec(Config(**meta["config"]["model"]))
    model.load_state_dict(load_file(run / "best.safetensors"))
    model.set_quantised(quantised)
    if not quantised:
        for point in points(model.prior):
            point.scale.zero_()
    model.deadzone, model.hard = STRENGTH, True
    model.filter.set_quantised(True)
    return model.eval()


def measure(run: Path, pictures: list[torch.Tensor], quantised: bool) -> Curve:
    """Mean curve over the pictures."""
    found = validate(load(run, quantised), pictures, torch.device("cpu"))["points"]
    name = "integer" if quantised else "float"
    qualities, bpp, psnr = zip(*found, strict=True)
    return Curve(name, name, bpp, psnr, qualities=qualities)


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--pictures", "count", type=int, default=0, help="Only the first few (0: all).")
@click.option("--crop", type=int, default=0, help="Only the middle square of this many pixels.")
def main(run: Path, folder: Path, count: int, crop: int) -> None:
    """Compare the integer path with floating point at equal weights."""
    pictures = open_pictures(folder)[: count or None]
    if crop:
        middle = [((p.shape[1] - crop) // 2, (p.shape[2] - crop) // 2) for p in pictures]
        pictures = [
            p[:, top : top + crop, left : left + crop]
            for p, (top, left) in zip(pictures, middle, strict=True)
        ]
    floating, integer = (measure(run, pictures, quantised) for quantised in (False, True))
    click.echo(f"{len(pictures)} pictures\nquality    float bpp    dB    integer bpp    dB")
    for q, a, b, c, d in zip(
        floating.qualities, floating.bpp, floating.psnr, integer.bpp, integer.psnr, strict=True
    ):
        click.echo(
            f"{q:7.0f}  {a:11.4f} {b:6.3f} {c:12.4f} {d:6.3f}   rate {(c / a - 1) * 100:+.2f} %"
        )
    found = delta(floating, integer)
    click.echo("BD-rate: " + ("none" if found is None else f"{found.rate:+.2f} %"))


if __name__ == "__main__":
    main()
