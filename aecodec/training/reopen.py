"""Go on from released weights: `python -m aecodec.training.reopen weights/ID OUT`.

The inverse of `aecodec.training.export`: a released folder becomes a run folder whose
best.safetensors can be trained further, joined, or exported again. Integers become the
floating-point numbers that they stand for, so what the codec computes stays the same; momenta
of optimizers are not in a release.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch import Tensor

from aecodec.training.config import Config, TrainConfig
from aecodec.training.eight import points
from aecodec.training.filter import LEVELS, Filter
from aecodec.training.graph import STORE
from aecodec.training.layers import GRID, Exact
from aecodec.training.model import Codec
from aecodec.training.networks import Prior
from aecodec.training.predictor_tensors import predictor_state
from aecodec.training.released import by_colour
from aecodec.training.symbols import BINS, SCALE_LEVELS, gaussian_bins

Array = npt.NDArray[Any]
# Vectors of networks that a model may leave out, the filter's ranges if they were never watched,
# and what CompressAI derives.
IMPOSSIBLE = 2e-9  # share of symbols that no table can code, as `gaussian_bins` has it at least
NOT_KEPT = (
    "q_a8", "q_a16", "q_s8", "q_s16", ".low", ".high", "z_prior._", "predictor.picture",
    "predictor.back",
    "gaussian", "index_floor", "hyper_counts", "worth",
)  # fmt: skip


def exact_layer(stored: dict[str, Array], grid: int) -> dict[str, Array]:
    """Weight and bias of an exact layer from its integers and 2^-shift."""
    shift = -np.log2(stored["multiplier"].astype(np.float64))
    half = np.where(shift > 0, 2.0 ** (shift - 1), 0.0)
    unit = 2.0 ** (shift - np.log2(GRID / grid))  # integers per 1.0 of weight
    weight = stored["weight"].astype(np.float64)
    return {
        "weight": weight / unit.reshape(-1, *(1,) * (weight.ndim - 1)),
        "bias": (stored["bias"] - half) / (unit * GRID),
    }


def filter_state(stored: dict[str, Array], filter_: Filter) -> dict[str, Array]:
    """State of a band's filter from its tensors (names without their prefix)."""
    out = {**stored, "first.weight": by_colour(stored["first.weight"], 1)}
    for name in [name for name in stored if name.startswith("last.")]:
        out[name] = by_colour(stored[name], 0)
    if "points" in stored:
        scale, zero = out.pop("points").T
        out["low"], out["high"] = -zero * scale, (LEVELS - zero) * scale
        for name, source in filter_.sources().items():
            weight_scale = out.pop(f"{name}.weight_scale")
            out[f"{name}.weight"] = out[f"{name}.weight"] * weight_scale[:, None, None, None]
            out[f"{name}.bias"] = out[f"{name}.bias"] * scale[source] * weight_scale
    out.pop("slope")
    return out


def prior_state(stored: dict[str, Array], prior: Prior) -> dict[str, Array]:
    """State of the prior's 8-bit layers and points; names with their prefix."""

    def layer(name: str, source: float) -> dict[str, Array]:
        weight, bias = stored[f"{name}.weight"], stored[f"{name}.bias"]
        scale = stored[f"{name}.weight_scale"].astype(np.float64)
        shape = (*scale.shape, *(1,) * (weight.ndim - scale.ndim))
        return {"weight": weight * scale.reshape(shape), "bias": bias * scale * source}

    scales = dict(zip(points(prior), stored["prior.points"], strict=True))
    out: dict[str, Array] = {}
    for part, stack in layer("prior.enter", scales[prior.source]).items():
        out |= {f"prior.enter.{step}.{part}": array for step, array in enumerate(stack)}
    for name, _, source in prior.layers():
        for part, array in layer(f"prior.{name}", scales[source]).items():
            out[f"prior.{name}.conv.{part}"] = array
    names = {module: name for name, module in prior.named_modules()}
    return out | {f"prior.{names[point]}.scale": np.array(v) for point, v in scales.items()}


def correction(frequencies: Array, sizes: Array) -> Array:
    """Corrections of the symbols' bits (levels, BINS), from the frozen tables of y.

    Lowest levels have no table if nothing is coded there: then 0 is free, and all else impossible.
    """
    share = np.full((SCALE_LEVELS, BINS), IMPOSSIBLE)
    share[:, 0] = 1
    start = 0
    for level, size in enumerate(sizes, SCALE_LEVELS - len(sizes)):
        share[level] = 0
        table = frequencies[start : start + size].astype(np.float64)
        start += size
        radius = (size - 2) // 2
        both = table[radius : 2 * radius + 1].copy()
        both[1:] += table[radius - 1 :: -1][:radius]
        shown = min(radius + 1, BINS - 1)
        share[level, :shown] = both[:shown]
        share[level, shown] += both[shown:].sum() + table[-1]
        share[level, shown + 1 :] = IMPOSSIBLE * table.sum()  # beyond the table
        share[level] /= share[level].sum()
    return np.asarray(np.log2(gaussian_bins().numpy()) - np.log2(share))


def hyper_state(stored: dict[str, Array]) -> dict[str, Array]:
    """What was counted of hyper-latents, if it was."""
    if "tables.z_class" not in stored:
        return {}
    rows = len(stored["tables.z_sizes"])
    return {
        "hyper_counts.classes": stored["tables.z_class"],
        "hyper_counts.frequencies": stored["tables.z_frequencies"].reshape(rows, -1),
    }


def state_of(stored: dict[str, Array], model: Codec) -> dict[str, Tensor]:
    """The state of `model` that a released file holds."""
    out = prior_state(stored, model.prior)
    if model.predictor is not None:
        out |= predictor_state(stored, model.predictor)
    for name, module in model.named_modules():
        if isinstance(module, Exact) and not name.startswith("predictor."):
            parts = {part: stored[f"{name}.{part}"] for part in ("weight", "bias", "multiplier")}
            layer = exact_layer(parts, module.grid)
            out |= {f"{name}.conv.{part}": array for part, array in layer.items()}
    for number, band in enumerate(model.filter):
        own = f"filter.{number}."
        tensors = {k.removeprefix(own): v for k, v in stored.items() if k.startswith(own)}
        state = filter_state(tensors, band) | {
            "factors.anchors": stored[f"vectors.q_filter.{number}"]
        }
        out |= {f"filter.bands.{number}.{k}": v for k, v in state.items()}
    for name, array in stored.items():
        group, _, rest = name.partition(".")
        if group in ("g_a", "g_s", "h_a"):
            out[name] = array
        elif group == "vectors" and not rest.startswith("q_filter."):
            out[f"{rest}.anchors"] = array
    for name in ("log_gain", "q_prior"):
        out[f"{name}.anchors"] = stored[f"train.{name}"]
    for name in (name for name in stored if name.startswith("train.z_prior.")):
        out[name.removeprefix("train.")] = stored[name]
    out["linear_a"], out["linear_s"] = stored["linear_a"], stored["linear_s"] * 64.0
    out["linear_bias"] = stored["linear_offset"][::256] * 64.0
    out["s"], out["grey_mask"] = 1.0 / stored["s_inverse"], stored["tables.luma"]
    if "encoder.worth" in stored:
        out["worth"] = stored["encoder.worth"]
    tables = stored["tables.y_frequencies"], stored["tables.y_sizes"]
    out["symbols.correction"] = correction(*tables)
    out |= hyper_state(stored)
    return {name: torch.from_numpy(np.array(array, np.float32)) for name, array in out.items()}


def reopen(folder: Path) -> tuple[Codec, dict[str, Any]]:
    """The model of a released folder, in floating point, and its manifest."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    model = Codec(Config(**manifest["config"]))
    state = state_of(load_file(folder / STORE), model)
    missing, unknown = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not any(part in name for part in NOT_KEPT)]
    if missing or unknown:
        raise ValueError(f"{folder}: does not fit its configuration: {missing + unknown}")
    model.follow_linear_path()
    return model, manifest


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def main(folder: Path, out: Path) -> None:
    """Write the released weights in FOLDER to the run folder OUT."""
    model, manifest = reopen(folder)
    out.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out / "best.safetensors")
    config = dataclasses.asdict(TrainConfig(model=model.cfg))
    training = manifest["training"]
    record = {"step": training["steps"], "minutes": training["minutes"]}
    record |= {"valid": training["validation"], "config": config}
    (out / "best.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
