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

from aecodec import codec, effort, picture
from aecodec.distortion import squared_error
from aecodec.weights import MANIFEST, Weights, id_of, open_weights

QUALITIES = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)
SUFFIXES = (".jpeg", ".jpg", ".png", ".webp")


def judge(paths: list[Path], weights: Weights, level: int | None = None) -> dict[str, Any]:
    """Points (quality, bpp, PSNR in dB; means over pictures) and score of whole files.

    The score is that of `aecodec.training.train.validate`, the mean over qualities of
    log2(bpp + lambda * MSE): lower is better. level: of effort, None for the default.
    """
    config, points, score = weights.manifest["config"], [], 0.0
    low, high = math.log(config["lambda_min"]), math.log(config["lambda_max"])
    for quality in QUALITIES:
        rows = [file(path, quality, weights.id.hex(), level) for path in paths]
        bpp, mse = np.array(rows).T
        points.append((quality, float(bpp.mean()), float(np.mean(10 * np.log10(255**2 / mse)))))
        weight = math.exp(low + (high - low) * quality / 100)
        score += math.log2(float(np.mean(bpp + weight * mse))) / len(QUALITIES)
    return {"score": score, "points": points, "pictures": len(paths)}


def file(path: Path, quality: float, model: str, level: int | None) -> tuple[float, float]:
    """Bits per pixel and squared error per sample of the file of one picture."""
    source = picture.load(path)
    data = codec.encode_picture(source, quality, metadata="none", effort=level, model=model)
    back = codec.decode_file(data)
    error = squared_error(source.pixels, back.pixels) / source.pixels.size
    return 8 * len(data) / (source.width * source.height), float(error)


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
