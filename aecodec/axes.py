"""Turned colour axes: a rotation of the colours of a picture before it is coded.

Latents hold one axis of colour (luma, about the mean of red, green and blue) in full detail and
what is at right angles to it (chroma) in less. Where the detail of a picture lies along another
axis, as under coloured light, chroma repeats what luma said. Such a picture is coded with its
colours turned, so that luma is where most of its detail is, and turned back when it is decoded.
A rotation keeps squared errors as they are.

Filters have learned from colours of 0 to 255 and do badly with others, so what is turned is also
shifted to where it leaves that range least.

A file holds six numbers: the axis that is turned around, times the angle in radians, times UNITS;
and the shift in levels. docs/format.md has the formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from aecodec.container import Axes
from aecodec.cost import Cost
from aecodec.effort import DRAFT
from aecodec.model import Model
from aecodec.search import choose
from aecodec.watch import Clock
from aecodec.window import Window, cut, padded

Float = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

NONE: Axes = (0, 0, 0, 0, 0, 0)
UNITS, LIMIT = 128, 127  # of the rotation's numbers, per radian; the greatest magnitude of all
REACH = 4  # pixels: differences over so many tell where the detail lies
BEYOND = 0.005  # share of colours that a shift leaves out of range at either end
COLOURS = 100  # a side, that are looked at for it
EXCESS = 0.01  # share of the cost that one level out of range, on average, is taken to add
LEAST = 0.1  # mean square, in levels, of detail that is worth a look
PATCH = 128  # side of the patches that stand for a large picture
GUESSED_AT = 5000  # quality, in hundredths: at others the same rotations save most
FROM = 500  # quality, in hundredths, below which files are so small that they are not turned
FEW = 2  # patches a side, for a guess
# Share of J, in trials, and of a guess that a rotation must save: what a search finds differs by as
# much between equally good ones.
WORTH, GUESSED_WORTH = 0.004, 0.001

# Rows: what the models that there are take for luma and, of chroma, the axis that they give most
# channels to.
USUAL: Matrix = np.array([[1, 1, 1], [-1, 0, 1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])


def matrix(axes: Axes) -> Matrix:
    """The rotation (3,3) that turns colours into those that are coded.

    R = I + sin(t) K + (1 - cos(t)) K^2, with K the cross product with the axis (Rodrigues).
    """
    vector = np.array(axes[:3], np.float64) / UNITS
    angle = float(np.linalg.norm(vector))
    if angle == 0:
        return np.eye(3)
    k = _cross(vector / angle)
    turned: Matrix = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)
    return turned


def candidates(pixels: Pixels, colours: Float, parts: Sequence[float]) -> list[Axes]:
    """Rotations worth a trial for a picture (H,W,3), from the covariance of its detail.

    Two put its main axis on luma, and one of them its second one on the first of chroma. colours
    (n,3), around 128: what is to stay in range. parts: how much of the way to take; half of it is
    what most pictures do best with.
    """
    if min(pixels.shape[:2]) <= 2 * REACH:
        return []
    x = pixels.astype(np.float32)
    middle, r = x[REACH:-REACH, REACH:-REACH], REACH
    around = x[: -2 * r, r:-r] + x[2 * r :, r:-r] + x[r:-r, : -2 * r] + x[r:-r, 2 * r :]
    detail = (middle - around / 4).reshape(-1, 3).astype(np.float64)
    # Not a matrix product: its sums would depend on how many threads a library takes.
    strengths, own = np.linalg.eigh(np.einsum("ni,nj->ij", detail, detail))
    if strengths[-1] < len(detail) * LEAST:
        return []
    own = own.T[::-1]  # rows: from most to least detail
    own = own * np.where((own * USUAL).sum(1) < 0, -1, 1)[:, None]
    own[2] = np.cross(own[0], own[1])
    found: list[Axes] = []
    for turned in (_between(own[0], USUAL[0]), USUAL.T @ own):
        for part in parts:
            axes = _shifted(_rounded(_vector(turned) * part * UNITS), colours)
            if any(axes[:3]) and axes not in found:
                found.append(axes)
    return found


def guessed_axes(model: Model, pixels: Pixels) -> Axes:
    """The rotation with which a picture (H,W,3) seems to cost least.

    From what the latents of a few patches are worth by themselves: in a fifteenth of the time of an
    encoding, three quarters of what `best_axes` saves. The same for every quality: what turns
    differently between two of them need not rise from one to the other.
    """
    patches, colours = sample(pixels, FEW), colours_of(pixels)
    whole = cut(patches, (0, 0, padded(patches.shape[1]), padded(patches.shape[0])))
    steps = model.at(GUESSED_AT, grey=False).steps_per_u().astype(np.float32)[:, None, None]

    def worth(axes: Axes) -> float:
        y = turned_model(model, axes).networks.analysis(whole, GUESSED_AT) * steps
        return float(np.log2(1 + np.abs(y)).sum()) * (1 + EXCESS * excess(axes, colours))

    guesses = (NONE, *candidates(patches, colours, (0.5,)))
    return _cheapest({axes: worth(axes) for axes in guesses}, GUESSED_WORTH)


def best_axes(model: Model, pixels: Pixels, quality: int, tries: int) -> Axes:
    """The rotation that costs least at a quality (hundredths), by trial.

    Trials are quick encodings of the picture, or where it is larger of so many patches a side.
    """
    patches = sample(pixels, tries)
    trials = (NONE, *candidates(patches, colours_of(pixels), (0.5, 1.0)))
    costs = {axes: trial(model, patches, quality, axes) for axes in trials}
    return _cheapest(costs, WORTH)


def trial(model: Model, pixels: Pixels, quality: int, axes: Axes) -> float:
    """J (see `aecodec.cost`) of a quick encoding."""
    turned = turned_model(model, axes)
    height, width = pixels.shape[:2]
    box = (0, 0, padded(width), padded(height))
    whole = cut(pixels, box)
    u = turned.networks.analysis(whole, quality)
    everything = slice(0, u.shape[1]), slice(0, u.shape[2])
    window = Window(whole, u, *everything, height, width)
    coded = choose(turned, window, quality, False, DRAFT, Clock())
    cost = Cost(turned, quality, grey=False)
    return cost.total(window, coded, cost.decoded(window, coded.y_hat))


def turned_model(model: Model, axes: Axes) -> Model:
    """The model for colours that are turned so."""
    if axes == NONE:
        return model
    turn, shift = matrix(axes).astype(np.float32), np.array(axes[3:], np.float32)[:, None]
    return replace(model, networks=model.networks.turned(turn, shift))


def sample(pixels: Pixels, count: int) -> Pixels:
    """A picture (H,W,3), or where it is larger so many patches a side from all over it."""
    for axis in (0, 1):
        length = pixels.shape[axis]
        if length > PATCH * count:
            middles = (np.arange(count) + 0.5) * length / count
            starts = np.rint(middles - PATCH / 2).astype(int)
            rows = np.concatenate([np.arange(start, start + PATCH) for start in starts])
            pixels = np.take(pixels, rows, axis)
    return pixels


def colours_of(pixels: Pixels) -> Float:
    """Colours (n,3), around 128, from all over a picture (H,W,3)."""
    rows, columns = (max(1, length // COLOURS) for length in pixels.shape[:2])
    return pixels[::rows, ::columns].reshape(-1, 3).astype(np.float32) - 128


def excess(axes: Axes, colours: Float) -> float:
    """By how many levels turned colours leave 0..255, on average."""
    turned = colours @ matrix(axes).T + axes[3:]
    return float(np.maximum(np.abs(turned + 0.5) - 128, 0).mean())


def _cheapest(costs: dict[Axes, float], worth: float) -> Axes:
    """The rotation that costs least, if that saves a share of at least `worth`."""
    best = min(costs, key=lambda axes: costs[axes])
    return best if costs[best] < (1 - worth) * costs[NONE] else NONE


def _cross(vector: Matrix) -> Matrix:
    """The matrix (3,3) that makes the cross product with a vector (3,)."""
    a, b, c = vector
    return np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])


def _between(source: Matrix, target: Matrix) -> Matrix:
    """The smallest rotation that takes one unit vector to another, not its opposite."""
    k = _cross(np.cross(source, target))
    turned: Matrix = np.eye(3) + k + k @ k / (1 + source @ target)
    return turned


def _vector(turned: Matrix) -> Matrix:
    """Axis times angle (3,) of a rotation matrix."""
    cosine = np.clip((np.trace(turned) - 1) / 2, -1, 1)
    skew = np.array([turned[2, 1] - turned[1, 2], turned[0, 2] - turned[2, 0],
                     turned[1, 0] - turned[0, 1]])  # fmt: skip
    sine = np.linalg.norm(skew) / 2
    if sine < 1e-9:
        return np.zeros(3)  # none, or half a turn, which no picture needs
    vector: Matrix = skew / (2 * sine) * np.arctan2(sine, cosine)
    return vector


def _rounded(values: Matrix) -> list[int]:
    found: list[int] = np.clip(np.rint(values), -LIMIT, LIMIT).astype(int).tolist()
    return found


def _shifted(rotation: list[int], colours: Float) -> Axes:
    """A rotation with the shift that keeps nearly all turned colours in 0..255."""
    a, b, c = rotation
    turned = colours @ matrix((a, b, c, 0, 0, 0)).T
    low, high = np.quantile(turned, (BEYOND, 1 - BEYOND), axis=0)
    inside = np.where(low < -128, -128 - low, np.minimum(127 - high, 0))
    d, e, f = _rounded(np.where(high - low > 255, -(low + high) / 2, inside))
    return a, b, c, d, e, f
