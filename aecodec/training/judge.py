"""Judge exported weights by whole files: `python -m aecodec.training.judge FOLDER --model ID`.

`aecodec.training.train.validate` estimates bits and takes one choice of symbols, as training
does. Here every picture is written as a file at the default effort and decoded back: what people
get. It measures the validation pictures by which weights are chosen; `--write` adds the result to
the manifest of the weights.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from aecodec import codec, effort, picture
from aecodec.distortion import decibels, squared_error
from aecodec.training.config import Config
from aecodec.training.data import SUFFIXES
from aecodec.training.train import VALID_QUALITIES
from aecodec.weights import MANIFEST, Weights, id_of, open_weights


def judge(paths: list[Path], weights: Weights, level: int | None = None) -> dict[str, Any]:
    """Points (quality, bpp, PSNR in dB; means over pictures) and score of whole files.

    The score is that of `aecodec.training.train.validate`, the mean over qualities of
    log2(bpp + lambda * MSE): lower is better. level: of effort, None for the default.
    """
    cfg, points, score = Config(**weights.manifest["config"]), [], 0.0
    for quality in VALID_QUALITIES:
        rows = [file(path, quality, weights.id.hex(), level) for path in paths]
        bpp, mse, db = np.array(rows).T
        points.append((quality, float(bpp.mean()), float(db.mean())))
        weight = math.exp(cfg.log_lambda(torch.tensor(quality, dtype=torch.float64)).item())
        score += math.log2(float(np.mean(bpp + weight * mse))) / len(VALID_QUALITIES)
    return {"score": score, "points": points, "pictures": len(paths)}


def file(path: Path, quality: float, model: str, level: int | None) -> tuple[float, float, float]:
    """Bits per pixel, squared error per sample, and PSNR in dB of the file of one picture."""
    source = picture.load(path)
    data = codec.encode_picture(source, quality, metadata="none", effort=level, model=model)
    squares = squared_error(source.pixels, codec.decode_file(data).pixels)
    samples = source.pixels.size
    bpp = 8 * len(data) / (source.width * source.height)
    return bpp, squares / samples, decibels(squares, samples)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", default="", help="Name or id (the default model).")
@click.option("--effort", "level", type=click.IntRange(effort.LEAST, effort.MOST))
@click.option("--write", is_flag=True, help="Add the result to the manifest of the weights.")
def main(folder: Path, model: str, level: int | None, write: bool) -> None:
    """Print what the files of the pictures in FOLDER come to."""
    if write and (level or os.environ.get(effort.VARIABLE)):
        raise click.UsageError("the manifest is for the default effort")
    weights = open_weights(id_of(model))
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    result = judge(paths, weights, level)
    if write:
        manifest = weights.manifest
        manifest["training"]["files"] = result
        (weights.folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    click.echo(json.dumps(result))


if __name__ == "__main__":
    main()
