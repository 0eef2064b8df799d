"""Steps shaped to the eye: finer for coarse structure, coarser for fine detail and for colour.

Squared error alone wants one step for all channels. Around that best point it hardly changes when
some steps become finer and others coarser, while measures of what people see (SSIMULACRA 2) change
a lot, for eyes are less sensitive to fine detail. A channel's steps become those of a quality `d`
units higher, and errors in it are worth that much more to the encoder, in part (`WORTH`):

    d = strength * (luma or chroma's curve over the channel's frequency) + FINER * quality / 100

All numbers were chosen on the validation pictures (docs/training.md). Nothing is trained here;
prior and filter can learn on from the result.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Array = npt.NDArray[np.float64]

BLOCK = 16
STEPS = ("log_inverse.anchors", "log_gain.anchors")  # names of what steps come from
# Of the curve: units per octave of frequency, and the octave where it is 0.
SLOPE, MIDDLE = 6.0, 1.6
COARSEST, COARSEST_CHROMA = 8.0, 5.0  # units more for what has next to no frequency
CHROMA, OPPONENT = -5.0, 8.0  # units for all of chroma; between red-blue and green-magenta detail
FINER = 3.0  # units for all channels at quality 100, so that sizes stay about what they were
PER_OCTAVE = 20.0  # units of quality in which steps are halved
WORTH = 0.85  # share of the change of squared steps that the encoder's view of errors follows


def frequency(basis: Array) -> Array:
    """(M,): root mean square frequency, in half cycles per block, of functions (M,3,16,16)."""
    across, down = np.meshgrid(range(BLOCK), range(BLOCK))
    waves = np.cos(np.pi * (across + 0.5) * down / BLOCK)  # of the DCT
    waves[0] /= 2**0.5
    spectrum = (waves @ basis @ waves.T) ** 2
    squared = (spectrum * (across**2 + down**2)).sum((1, 2, 3)) / spectrum.sum((1, 2, 3))
    found: Array = np.sqrt(squared)
    return found


def opponent(basis: Array) -> Array:
    """(M,): share of green-magenta (1,-2,1) in chroma, the rest being red-blue (1,0,-1)."""
    axes = np.array([[1, -2, 1], [3**0.5, 0, -(3**0.5)]])
    green, red = (np.einsum("ac,mcij->amij", axes, basis) ** 2).sum((2, 3))
    found: Array = green / np.maximum(green + red, 1e-12)
    return found


def curve(basis: Array, luma: npt.NDArray[np.bool_]) -> Array:
    """(M,): units of quality by which each channel's steps become finer at strength 1."""
    f = frequency(basis)
    octaves = SLOPE * (MIDDLE - np.log2(1 + f / 2))
    coarse = np.where(luma, COARSEST, COARSEST_CHROMA) * np.exp(-f)
    chroma = CHROMA + OPPONENT * (opponent(basis) - 0.5)
    found: Array = octaves + coarse + np.where(luma, 0.0, chroma)
    return found


def moved(anchors: Array, units: Array) -> Array:
    """Anchors (K,M), evenly spaced over quality 0 to 100, at qualities (K,M) units higher.

    Beyond the ends they go on as straight as they were.
    """
    rows = len(anchors)
    at = np.arange(rows)[:, None] + units * (rows - 1) / 100
    low = np.clip(np.floor(at), 0, rows - 2).astype(np.intp)
    below, above = (np.take_along_axis(anchors, low + more, 0) for more in (0, 1))
    found: Array = below + (at - low) * (above - below)
    return found


def shaped(state: dict[str, Tensor], strength: float) -> dict[str, Tensor]:
    """The weights of a model with other steps, and with what errors in each channel are worth."""
    basis = state["linear_s"].double().numpy().T.reshape(-1, 3, BLOCK, BLOCK)
    own = strength * curve(basis, state["grey_mask"].bool().numpy())
    inverse = state["log_inverse.anchors"].double().numpy()
    finer = FINER * np.linspace(0, 1, len(inverse))[:, None]
    change = torch.from_numpy(moved(inverse, own + finer) - inverse).float()
    worth = 2 ** (2 * WORTH * own / PER_OCTAVE)
    return state | {
        "log_inverse.anchors": state["log_inverse.anchors"] + change,
        "log_gain.anchors": state["log_gain.anchors"] - change,
        "worth": torch.from_numpy(worth).float(),
    }


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--strength", type=float, default=0.8, show_default=True)
@click.option(
    "--plain",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Run folder with the steps before any were shaped. [default: RUN]",
)
def main(run: Path, out: Path, strength: float, plain: Path | None) -> None:
    """Write the model of the run folder RUN with other steps to the run folder OUT."""
    before = load_file((plain or run) / "best.safetensors")
    worth = before.get("worth")
    if worth is not None and not torch.all(worth == 1):
        raise click.UsageError(f"{plain or run}: has such steps already; name a run with --plain")
    state = load_file(run / "best.safetensors") | {name: before[name] for name in STEPS}
    out.mkdir(parents=True, exist_ok=True)
    save_file(shaped(state, strength), out / "best.safetensors")
    record = json.loads((run / "best.json").read_text())
    # What was measured was with other steps: `aecodec.training.judge` measures the files.
    record.pop("valid", None)
    (out / "best.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
