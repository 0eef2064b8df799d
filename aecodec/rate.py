"""The quality scale, and the search for the quality that meets a size, a rate, a PSNR or a score.

    quality 0 ........ 100      what people give; a file keeps it in hundredths
    bytes, PSNR and score (SSIMULACRA 2) grow with it, so a target is met by a search on one
    variable (PSNR steps a little where the model's bands of quality meet: the search brackets such
    a step and ends there)

The search is a secant inside a bracket that falls back to bisection: sizes are nearly
exponential and PSNR nearly linear in the quality, so three to five encodings are usual.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from aecodec import seen
from aecodec.errors import AecError

if TYPE_CHECKING:
    from aecodec.picture import Picture

DEFAULT_QUALITY = 75.0
FINEST = 10000  # hundredths: the quality 100

SIZE_TOLERANCE = 0.02  # how far below the size asked a file may stay
TOLERANCES = {"psnr": 0.05, "ssimulacra2": 0.25}  # dB and points, to either side
MAX_ENCODINGS = 12

_LOSSLESS = 100.0  # dB or points: stands for infinity where slopes are computed
_START = 6000  # hundredths: the first guess
# Per hundredth of quality, until two are measured.
_SLOPES = {"size": 0.00035, "bpp": 0.00035, "psnr": 0.0015, "ssimulacra2": 0.01}
_BLIND_STEPS = 3  # extrapolations before the end of the scale itself is tried
_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "ki": 2**10, "mi": 2**20, "gi": 2**30}

Unit = Literal["size", "bpp", "psnr", "ssimulacra2"]


@dataclass(frozen=True)
class Target:
    """What a file should come to: `size` in bytes, `bpp` in bits per pixel, `psnr` in dB, or
    `ssimulacra2`, the score of `aecodec.seen`.

    Raises AecError for a value that is not a positive number, or where that cannot be measured.
    """

    unit: Unit
    value: float

    def __post_init__(self) -> None:
        if not (self.value > 0 and math.isfinite(self.value)):
            raise AecError(f"the target must be a number above 0, not {self.value:g}")
        if self.unit == "ssimulacra2" and not seen.available():
            raise AecError("needs the package ssimulacra2: pip install ssimulacra2")


@dataclass(frozen=True)
class Hit:
    """A finished search. psnr, ssimulacra2: None when they did not have to be measured."""

    data: bytes
    quality: float
    psnr: float | None = None
    ssimulacra2: float | None = None


class Coder(Protocol):
    """What the search asks of an encoder that holds one picture: `aecodec.codec.Encoder`."""

    @property
    def slow(self) -> bool:
        """Whether drafts are much faster than encodings."""

    def encode(self, quality: float, *, draft: bool = False) -> bytes:
        """The file at a quality; a draft is about as large and as good."""

    def decoded(self) -> Picture:
        """The picture in the file or draft encoded last."""


@dataclass(frozen=True)
class _Probe:
    quality: int  # hundredths
    data: bytes
    value: float | None  # PSNR or score; infinite when nothing is lost
    distance: float  # from the target: below 0 is too little quality, above 0 too much


def parse_size(text: str) -> int:
    """Bytes of `60000`, `60k`, `1.5M` (decimal) or `60KiB` (binary). Raises AecError."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kmg]i?|)b?\s*", text.lower())
    size = int(float(found[1]) * _UNITS[found[2]]) if found else 0
    if size < 1:
        raise AecError(f"{text!r} is not a size such as 60000, 60k or 1.5M")
    return size


def psnr(a: Picture, b: Picture) -> float:
    """PSNR in dB over the 8-bit colour samples of two pictures of one shape; inf when equal.

    Alpha is kept exactly by the format and not counted, nor is colour where it is 0 in the first.
    """
    from aecodec.distortion import decibels, hidden_by_alpha, samples_seen, squared_error

    hidden = hidden_by_alpha(a)
    return decibels(squared_error(a.pixels, b.pixels, hidden), samples_seen(a.pixels, hidden))


def score(a: Picture, b: Picture) -> float:
    """SSIMULACRA 2 of the colours of two pictures of one shape; inf when equal. Raises AecError.

    Where alpha is 0 in the first, they count as equal.
    """
    from PIL import Image

    from aecodec.distortion import hidden_by_alpha

    other, hidden = b.pixels, hidden_by_alpha(a)
    if hidden is not None:
        other = other.copy()
        other[hidden] = a.pixels[hidden]
    if bool((a.pixels == other).all()):
        return math.inf
    return seen.score(*(Image.fromarray(one).convert("RGB") for one in (a.pixels, other)))


MEASURES: dict[Unit, Callable[[Picture, Picture], float]] = {"psnr": psnr, "ssimulacra2": score}


def target_of(
    size: float | None, bpp: float | None, psnr: float | None, ssimulacra2: float | None = None
) -> Target | None:
    """The one target that is not None. Raises AecError for several, or one that makes no sense."""
    values: dict[Unit, float | None] = {
        "size": size, "bpp": bpp, "psnr": psnr, "ssimulacra2": ssimulacra2
    }  # fmt: skip
    given = [Target(unit, value) for unit, value in values.items() if value is not None]
    if len(given) > 1:
        raise AecError(" and ".join(target.unit for target in given) + " exclude each other")
    return given[0] if given else None


def meet(target: Target, picture: Picture, coder: Coder) -> Hit:
    """The file of a picture that meets the target; a slow coder is asked for drafts first.

    Raises AecError: see `reach`.
    """
    pixels = picture.width * picture.height

    def measure(_: bytes) -> float:
        return MEASURES[target.unit](picture, coder.decoded())

    start = _START / 100
    if coder.slow:
        draft = functools.partial(coder.encode, draft=True)
        with contextlib.suppress(AecError):  # what drafts do not reach may yet be reached
            start = reach(target, pixels, draft, measure).quality
    return reach(target, pixels, coder.encode, measure, start)


def reach(
    target: Target,
    pixels: int,
    encode: Callable[[float], bytes],
    measure: Callable[[bytes], float],
    start: float = _START / 100,
) -> Hit:
    """The file that meets the target, by at most MAX_ENCODINGS calls of `encode(quality)`.

    `measure` gives the PSNR or score of a file and is called for such targets only; `pixels` is
    width times height; the search begins at the quality `start`. A size is never exceeded and
    missed by at most 2 %, a PSNR by at most 0.05 dB, a score by 0.25, except where the next
    hundredth of quality already goes too far, or is exact, or quality 100 needs less than the size.
    Raises AecError naming the reachable range when the target lies outside it.
    """
    search = _Search(target, pixels, encode, measure)
    quality = round(start * 100)
    for _ in range(MAX_ENCODINGS):
        probe = search.probe(quality)
        if search.accepts(probe):
            return search.hit(probe)
        search.narrow(probe)
        if search.finished():
            break
        quality = search.next_quality()
    return search.hit(search.best())


class _Search:
    """A bracket of two probes around the target."""

    def __init__(
        self,
        target: Target,
        pixels: int,
        encode: Callable[[float], bytes],
        measure: Callable[[bytes], float],
    ) -> None:
        self.target, self.pixels = target, pixels
        self.encode, self.measure = encode, measure
        self.low: _Probe | None = None
        self.high: _Probe | None = None
        self.last: _Probe | None = None
        self.before: _Probe | None = None
        self.steps = 0

    @property
    def limit(self) -> int:
        """The size asked, in bytes."""
        per_byte = self.pixels / 8 if self.target.unit == "bpp" else 1
        return int(self.target.value * per_byte)

    def probe(self, quality: int) -> _Probe:
        """Encode at a quality in hundredths."""
        data = self.encode(quality / 100)
        if self.target.unit in MEASURES:
            value = self.measure(data)
            return _Probe(quality, data, value, min(value, _LOSSLESS) - self.target.value)
        return _Probe(quality, data, None, math.log(len(data) / max(self.limit, 1)))

    def accepts(self, probe: _Probe) -> bool:
        """Whether this is near enough to the target."""
        if self.target.unit in MEASURES:
            return abs(probe.distance) <= TOLERANCES[self.target.unit]
        least = -math.inf if probe.quality == FINEST else math.log(1 - SIZE_TOLERANCE)
        return least <= probe.distance <= 0

    def narrow(self, probe: _Probe) -> None:
        """Take in a probe that missed. Raises AecError when it missed at the end of the scale."""
        if probe.distance > 0:
            self.high = probe
        else:
            self.low = probe
        self.before, self.last = self.last, probe
        self.steps += 1
        if (probe.distance > 0 and probe.quality == 0) or (
            probe.distance <= 0 and probe.quality == FINEST
        ):
            other = self.probe(FINEST - probe.quality)
            ends = sorted((probe, other), key=lambda end: end.quality)
            raise AecError(self._unreachable(*ends))

    def finished(self) -> bool:
        """Whether no quality is left between the two probes that would save much."""
        if not (self.low and self.high):
            return False
        # No file is larger than the one that keeps the picture exactly.
        saved = 1 - len(self.low.data) / len(self.high.data)
        exactly = self.high.value == math.inf and saved <= SIZE_TOLERANCE
        return exactly or self.high.quality - self.low.quality <= 1

    def next_quality(self) -> int:
        """Where to look next, in hundredths."""
        if self.low is None or self.high is None:
            return self._extrapolate()
        low, high = self.low, self.high
        stuck = self.before is not None and self.last is not None and (
            (self.before.distance > 0) == (self.last.distance > 0)
        )  # fmt: skip
        if stuck and self.steps > 3:
            quality = (low.quality + high.quality) // 2
        else:
            share = (self._aim() - low.distance) / (high.distance - low.distance)
            quality = round(low.quality + share * (high.quality - low.quality))
        return min(max(quality, low.quality + 1), high.quality - 1)

    def best(self) -> _Probe:
        """The probe to settle for: the larger one that fits, or the nearer value."""
        probes = [probe for probe in (self.low, self.high) if probe]
        if self.target.unit not in MEASURES:
            return self.low or probes[0]
        # From some quality on a picture may be kept exactly, for hardly more bytes than below it.
        if self.high and self.high.value == math.inf:
            return self.high
        return min(probes, key=lambda probe: abs(probe.distance))

    def hit(self, probe: _Probe) -> Hit:
        """The result of the search."""
        value = {self.target.unit: probe.value} if self.target.unit in MEASURES else {}
        return Hit(probe.data, probe.quality / 100, **value)

    def _aim(self) -> float:
        """The middle of what is accepted."""
        return 0.0 if self.target.unit in MEASURES else math.log(1 - SIZE_TOLERANCE / 2)

    def _extrapolate(self) -> int:
        """A step to the side of which nothing is known yet."""
        last, before = self.last, self.before
        assert last is not None
        if self.steps > _BLIND_STEPS:
            return 0 if last.distance > 0 else FINEST
        slope = _SLOPES[self.target.unit]
        if before is not None and before.quality != last.quality:
            # Far-off slopes would send the search to the end of the scale, or nowhere.
            measured = (last.distance - before.distance) / (last.quality - before.quality)
            slope = min(max(measured, slope / 4), slope * 4)
        step = (self._aim() - last.distance) / slope
        quality = round(last.quality + step * 1.05)  # a little too far closes the bracket
        return min(max(quality, 0), FINEST)

    def _unreachable(self, least: _Probe, most: _Probe) -> str:
        asked = f"{self.target.value:g}"
        if self.target.unit in MEASURES:
            unit = " dB" if self.target.unit == "psnr" else ""
            top = "lossless" if most.value == math.inf else f"{most.value:.2f}{unit}"
            return f"{asked}{unit} cannot be reached: {least.value:.2f}{unit} to {top} can"
        sizes = [len(least.data), len(most.data)]
        if self.target.unit == "bpp":
            lower, upper = (8 * size / self.pixels for size in sizes)
            return f"{asked} bpp cannot be reached: {lower:.4g} to {upper:.4g} bpp can"
        return f"{self.limit} bytes cannot be reached: {sizes[0]} to {sizes[1]} bytes can"
