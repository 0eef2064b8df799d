"""Export: trained weights -> weights/<model-id>/ (graphs, integer tables, manifest).

`python -m aecodec.training.export RUN_FOLDER -o weights ...` takes a run's best.safetensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save
from safetensors.torch import load_file
from torch import nn

from aecodec.hiding import RATE_UNITS
from aecodec.prior import GAIN_SHIFT, INVERSE_SHIFT, Z_LIMIT
from aecodec.training import graphs
from aecodec.training.config import Config
from aecodec.training.eight import points
from aecodec.training.filter import LEAST_FACTOR, Filter
from aecodec.training.graph import STORE, Graph
from aecodec.training.layers import (
    GRID,
    Depthwise,
    Exact,
    Pointwise,
    whole_weights,
)
from aecodec.training.model import Codec
from aecodec.training.networks import MEAN_GRID, SCALE_GRID, Prior
from aecodec.training.predictor_tensors import offset_rows, predictor_tensors, training_tensors
from aecodec.training.released import (
    by_position,
    eight_tensors,
    exact_tensors,
    frequencies,
    to_numpy,
)
from aecodec.training.symbols import (
    BINS,
    MEAN_UNITS,
    SCALE_LEVELS,
    SCALE_MIN,
    SCALE_STEP,
    SymbolModel,
    gaussian_bins,
)

Array = npt.NDArray[Any]
QUALITY_ROWS = 51  # rows of the integer quality tables: every 2.00
FLOAT_VECTORS = ("q_a8", "q_a16", "q_s16", "q_s8", "q_h", "q_z", "log_inverse")
LICENCE = "Apache-2.0"
HIDING = 0.38, 1.02, 3.2  # signs per element at most; half of it at this sigma; how suddenly


def y_tables(symbols: SymbolModel) -> tuple[Array, Array]:
    """Frequencies and sizes of the tables of y, one per scale level, each with an escape.

    The first one is that of the certain zero, which stands for all levels up to it. |k| has the
    shares that were counted; those that share a bin follow the level's Gaussian.
    """
    bins = gaussian_bins().numpy()
    shares = bins * 2.0 ** -symbols.correction.cpu().double().numpy()
    flat, sizes = [], []
    for level in range(symbols.silent, SCALE_LEVELS):
        sigma = SCALE_MIN * math.exp(level * SCALE_STEP)
        radius = math.ceil(4.5 * sigma) + 1
        # Mass of |k| = 0, 1, ... radius, both signs, and of all beyond.
        beyond = [math.erfc((k - 0.5) / (sigma * math.sqrt(2))) for k in range(1, radius + 2)]
        mass = -np.diff([1.0, *beyond])
        last = min(radius, BINS - 2)
        if radius > last:
            mass[last + 1 :] *= shares[level, -1] / bins[level, -1]
        mass[: last + 1] = shares[level, : last + 1]
        tail = max(shares[level].sum() - mass.sum(), 2.0**-18)
        pmf = np.concatenate([mass[:0:-1] / 2, mass[:1], mass[1:] / 2, [tail]])
        flat.append(frequencies(pmf))
        sizes.append(2 * radius + 2)
    return np.concatenate(flat), np.array(sizes, np.int32)


def hiding_rates(silent: int, least: float) -> Array:
    """Signs that are hidden for each element of a scale level, in 1/1024: see `aecodec.hiding`.

    About what pays follows from how many residuals lie near to where one symbol becomes another;
    the figures of this curve over the level's sigma were chosen on the validation set. Levels with
    fewer than `least` hide none: where most elements have such a level they crowd out the others.
    """
    most, middle, power = HIDING
    sigma = SCALE_MIN * np.exp(np.arange(silent, SCALE_LEVELS) * SCALE_STEP)
    rates = most / (1 + (middle / sigma) ** power)
    rates[rates < least] = 0
    return np.round(rates * RATE_UNITS).astype(np.int16)


def z_tables(model: Codec) -> dict[str, Array]:
    """Closed tables over -15..15 of every (quality bucket, hyper-latent channel)."""
    channels = model.cfg.Z * model.cfg.anchors
    values = torch.arange(-Z_LIMIT, Z_LIMIT + 1, dtype=torch.float32)
    with torch.no_grad():
        _, lik = model.z_prior(values.expand(1, channels, -1), training=False)
    pmf = lik.reshape(channels, -1).double().numpy()
    return {
        "z_frequencies": np.concatenate([frequencies(row + 2.0**-20) for row in pmf]),
        "z_sizes": np.full(channels, 2 * Z_LIMIT + 1, np.int32),
    }


def quality_tables(model: Codec) -> dict[str, Array]:
    """Integer rows of the quality tables (see aecodec.prior.PriorTables)."""
    quality = torch.linspace(0, 100, QUALITY_ROWS)
    with torch.no_grad():
        log_gain = model.log_gain(quality)[..., 0, 0].double()
        vector = model.q_prior(quality)[..., 0, 0].double()
    steps_per_u = torch.exp(log_gain) * model.s.double()
    shift = (torch.log(steps_per_u) - math.log(SCALE_MIN)) / SCALE_STEP
    shift = (shift - model.cfg.silent_levels) * SCALE_GRID
    offsets = {} if model.predictor is None else offset_rows(model.predictor, quality)
    return offsets | {
        "gain": to_numpy((steps_per_u * (MEAN_UNITS / MEAN_GRID) * 2**GAIN_SHIFT).round(), "int32"),
        "inverse": to_numpy((GRID / MEAN_UNITS / steps_per_u * 2**INVERSE_SHIFT).round(), "int32"),
        "shift": to_numpy(shift.round(), "int16"),
        "vector": to_numpy((vector * GRID).round(), "int16"),
    }


def prior_tensors(prior: Prior) -> dict[str, Array]:
    """Tensors of the prior in 8 bits but for its last layers; the steps' adaptors are a stack."""
    out: dict[str, Array] = {}
    if len({float(point.scale) for point in prior.stream()}) > 1:
        raise ValueError("the prior's residual sums need one scale")
    out["prior.points"] = np.array([float(point.scale) for point in points(prior)], np.float32)
    stack = [eight_tensors(conv, prior.source) for conv in prior.enter]
    for part in stack[0]:
        out[f"prior.enter.{part}"] = np.stack([each[part] for each in stack])
    for name, layer, source in prior.layers():
        tensors = eight_tensors(layer.conv, source)
        out |= {f"prior.{name}.{part}": array for part, array in tensors.items()}
    return out


def filter_tensors(filter_: Filter) -> dict[str, Array]:
    """Tensors of a band's filter: inner convolutions in 8 bits if their ranges are known."""
    out: dict[str, Array] = {}
    for name, conv in filter_.named_modules():
        if isinstance(conv, nn.Conv2d):
            out[f"{name}.weight"] = to_numpy(conv.weight, "float16")
            out[f"{name}.bias"] = to_numpy(conv.bias)
    out["slope"] = np.array([filter_.slope], np.float32)
    if filter_.high.any():
        out |= _eight_bit_tensors(filter_)
    out["first.weight"] = by_position(out["first.weight"], 1)
    for name in [name for name in out if name.startswith("last.")]:
        out[name] = by_position(out[name], 0)
    return out


def _eight_bit_tensors(filter_: Filter) -> dict[str, Array]:
    """Points of a filter, and its convolutions between them."""
    scale, zero = filter_.scales()
    out = {"points": to_numpy(torch.stack([scale, zero], 1))}
    for name, source in filter_.sources().items():
        conv = filter_.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        whole, weight_scale = whole_weights(conv.weight)
        out[f"{name}.weight"] = to_numpy(whole, "int8")
        out[f"{name}.weight_scale"] = to_numpy(weight_scale)
        bias = conv.bias.detach() / (scale[source] * weight_scale)
        out[f"{name}.bias"] = to_numpy(bias.round(), "int32")
    return out


def collect(model: Codec) -> dict[str, Array]:
    """Every tensor of the released file, by name."""
    out: dict[str, Array] = {}
    parts = model.named_modules()
    exact = {n: m for n, m in parts if isinstance(m, Exact) and not n.startswith("predictor.")}
    for name, module in exact.items():
        for part, array in exact_tensors(module.conv, module.grid, module.limit).items():
            out[f"{name}.{part}"] = array
    out |= prior_tensors(model.prior)
    if model.predictor is not None:
        out |= predictor_tensors(model.predictor)
    for name, module in model.named_modules():
        floating = name.split(".")[0] in ("g_a", "h_a", "g_s")
        if floating and isinstance(module, Pointwise | Depthwise):
            out[f"{name}.weight"] = to_numpy(module.weight, "float16")
            out[f"{name}.bias"] = to_numpy(module.bias)
    for number, band in enumerate(model.filter):
        out |= {f"filter.{number}.{name}": array for name, array in filter_tensors(band).items()}
        out[f"vectors.q_filter.{number}"] = to_numpy(band.factors.anchors.clamp_min(LEAST_FACTOR))
    out["linear_a"] = to_numpy(model.linear_a, "float16")
    out["linear_s"] = to_numpy(model.linear_s / 64.0, "float16")
    out["linear_offset"] = to_numpy((model.linear_bias / 64.0).repeat_interleave(256))
    out["overlap"] = to_numpy(model.overlap)
    out["s_inverse"] = to_numpy(1.0 / model.s)
    used = {"q_a8": model.cfg.has_g_a, "q_a16": model.cfg.has_g_a}
    used |= {"q_s8": model.cfg.has_g_s, "q_s16": model.cfg.has_g_s}
    for name in (name for name in FLOAT_VECTORS if used.get(name, True)):
        out[f"vectors.{name}"] = to_numpy(getattr(model, name).anchors)
    for name, array in quality_tables(model).items():
        out[f"tables.{name}"] = array
    out["tables.luma"] = to_numpy(model.grey_mask, "uint8")
    out["tables.y_frequencies"], out["tables.y_sizes"] = y_tables(model.symbols)
    for name, array in (model.hyper_counts.tables() or z_tables(model)).items():
        out[f"tables.{name}"] = array
    out["tables.hiding"] = hiding_rates(model.symbols.silent, model.cfg.least_hiding)
    # What only training needs, so that the released file can be trained further.
    for name, value in model.z_prior.state_dict().items():
        if not name.startswith(("_offset", "_quantized_cdf", "_cdf_length")):
            out[f"train.z_prior.{name}"] = to_numpy(value)
    if model.predictor is not None:
        for name, value in training_tensors(model.predictor).items():
            out[f"train.predictor.{name}"] = to_numpy(value)
    out["encoder.worth"] = to_numpy(model.worth)
    out["train.log_gain"] = to_numpy(model.log_gain.anchors)
    out["train.q_prior"] = to_numpy(model.q_prior.anchors)
    return {name: np.ascontiguousarray(array) for name, array in sorted(out.items())}


def tensor_offsets(data: bytes) -> dict[str, tuple[int, int]]:
    """Absolute (offset, length) of every tensor in a safetensors file."""
    header = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + header])
    start = 8 + header
    return {
        name: (start + entry["data_offsets"][0], int(np.diff(entry["data_offsets"])[0]))
        for name, entry in entries.items()
        if name != "__metadata__"
    }


def write_graphs(
    folder: Path, cfg: Config, tensors: dict[str, Array], offsets: dict[str, tuple[int, int]]
) -> dict[str, str]:
    """Write the graphs of a model; their hashes by the names of their files."""
    hashes = {}
    for name, build in graphs.builders(cfg).items():
        graph = Graph(name, offsets, tensors)
        build(graph, cfg)
        blob = graph.model()
        (folder / f"{name}.onnx").write_bytes(blob)
        hashes[f"{name}.onnx"] = hashlib.sha256(blob).hexdigest()
    return hashes


def export(model: Codec, root: Path, about: dict[str, Any]) -> Path:
    """Write root/<model-id>/ and make it the default model; returns the folder."""
    tensors = collect(model)
    data = save(tensors)
    digest = hashlib.sha256(data).hexdigest()
    folder = root / digest[:8]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STORE).write_bytes(data)
    manifest = {"id": digest[:8], "licence": LICENCE, "config": dataclasses.asdict(model.cfg)}
    hashes = write_graphs(folder, model.cfg, tensors, tensor_offsets(data))
    manifest |= about | {"sha256": {STORE: digest} | hashes}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    (root / "default").write_text(digest[:8] + "\n")
    return folder


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), default=Path("weights"))
@click.option("--data", "about_data", required=True, help="What it was trained on, one line.")
@click.option("--recipe", required=True, help="How, one line.")
def main(run: Path, out: Path, about_data: str, recipe: str) -> None:
    """Export the best weights of the run folder RUN."""
    meta = json.loads((run / "best.json").read_text())
    model = Codec(Config(**meta["config"]["model"]))
    model.load_state_dict(load_file(run / "best.safetensors"))
    about = {
        "training": {
            "data": about_data,
            "recipe": recipe,
            "steps": meta["step"],
            "minutes": round(meta["minutes"]),
            "commit": _commit(),
            "validation": meta.get("valid"),  # not of every run
        }
    }
    folder = export(model, out, about)
    size = sum(f.stat().st_size for f in folder.iterdir())
    click.echo(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
