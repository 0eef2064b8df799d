"""Put separately trained parts together: `python -m aecodec.training.join OUT ...`.

The probability model of one run and the synthesis of another become one model. Its symbols
are counted anew, in the integer arithmetic of the released file, and it is judged on the
validation pictures. OUT is then what `aecodec.training.export` takes.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from aecodec.quantise import STRENGTH
from aecodec.training.config import TrainConfig, load_config
from aecodec.training.data import open_pictures, open_tiles
from aecodec.training.hyper import TILES, count_hyper
from aecodec.training.model import Codec
from aecodec.training.precision import half_pays
from aecodec.training.stages import choose_points, fit_symbols, load_parts
from aecodec.training.synthesis import PARTS
from aecodec.training.train import FIT_BATCHES, validate

FITS = 2  # the dead zone follows the counts, the counts the dead zone: twice is enough


def averaged_weights(run: Path) -> dict[str, Tensor]:
    """The averaged weights of a run of `aecodec.training.train`."""
    state = torch.load(run / "last.ckpt", map_location="cpu", weights_only=True)
    ema: dict[str, Tensor] = state["ema"]
    return {k.removeprefix("module."): v for k, v in ema.items() if k != "n_averaged"}


def join(
    cfg: TrainConfig, synthesis: Path, prior: Path | None, gain: float, bands: Sequence[Path] = ()
) -> Codec:
    """The synthesis of one run, everything else of another if given, steps divided by `gain`.

    bands: runs of which each trained the filter of one band of quality, in order of quality.
    """
    weights = load_file(synthesis / "best.safetensors")
    if bands:
        weights = {k: v for k, v in weights.items() if not k.startswith("filter.")}
    for number, run in enumerate(bands):
        own = f"filter.bands.{number}."
        found = load_file(run / "best.safetensors")
        weights |= {k: v for k, v in found.items() if k.startswith(own)}
    if prior is not None:
        other = averaged_weights(prior)
        weights |= {k: v for k, v in other.items() if not k.startswith(PARTS)}
    weights["log_gain.anchors"] = weights["log_gain.anchors"] + math.log(gain)
    weights["log_inverse.anchors"] = weights["log_inverse.anchors"] - math.log(gain)
    model = Codec(cfg.model)
    load_parts(model, weights, f"{synthesis} and {prior}")  # counts and points may be missing
    model.set_quantised(True)
    model.filter.set_quantised(True)
    model.deadzone, model.hard = STRENGTH, True
    return model


def judge(model: Codec, cfg: TrainConfig, encoder: str = "") -> dict[str, Any]:
    """Count the symbols of training crops, then score the model on the validation pictures.

    encoder: released weights that say what to code in these crops, "" for the model itself.
    """
    tiles = open_tiles(Path(cfg.data), Path(cfg.cache))
    count_hyper(model, tiles, [cfg.seed, 79], TILES, encoder)
    with torch.autocast("cpu", torch.bfloat16, enabled=half_pays("cpu")):
        if not model.prior.source.scale:  # trained in floating point to the end
            choose_points(model, tiles, cfg)
        for _ in range(FITS):
            fit_symbols(model, tiles, cfg, 4 * FIT_BATCHES, encoder)
        return validate(model, open_pictures(Path(cfg.valid)), torch.device("cpu"))


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--config", "path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--synthesis", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--prior", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--band",
    "bands",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    help="Run that trained the filter of one band; once for each, in order.",
)
@click.option("--gain", type=float, default=1.0, show_default=True, help="Finer steps above 1.")
@click.option(
    "--encoder",
    default="",
    help="Released weights that say what is coded where symbols are counted.",
)
@click.option("--threads", type=int, default=0, help="CPU threads (0: all cores).")
def main(
    out: Path, path: Path, synthesis: Path, prior: Path | None, bands: tuple[Path, ...],
    gain: float, encoder: str, threads: int,
) -> None:  # fmt: skip
    """Write the joined model to the run folder OUT."""
    if threads:
        torch.set_num_threads(threads)
    cfg = load_config(path)
    if bands and len(bands) != cfg.model.filter_bands:
        raise click.UsageError(f"the model has {cfg.model.filter_bands} bands")
    model = join(cfg, synthesis, prior, gain, bands)
    result = judge(model, cfg, encoder)
    out.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / "best.safetensors")
    meta = json.loads((synthesis / "best.json").read_text())
    steps, minutes = meta["step"], meta["minutes"]
    for run in bands:
        meta = json.loads((run / "best.json").read_text())
        steps, minutes = steps + meta["step"], minutes + meta["minutes"]
    if prior is not None:
        state = torch.load(prior / "last.ckpt", map_location="cpu", weights_only=True)
        steps, minutes = steps + state["step"], minutes + state["minutes"]
    record = {"step": steps, "minutes": minutes, "valid": result}
    record["config"] = dataclasses.asdict(cfg)
    (out / "best.json").write_text(json.dumps(record, indent=1))
    click.echo(json.dumps(result))


if __name__ == "__main__":
    main()
