"""Distances between an original and its decoded copy, both 8-bit RGB pictures.

psnr         dB, over all samples of all three channels: 10 log10(255^2 / MSE); computed per
             picture, averaged in dB over a set (the convention of the published Kodak curves)
ms_ssim      0..1, Wang, Simoncelli, Bovik 2003, from pytorch-msssim; None under 161 px a side
             (11-tap window after four halvings)
ssimulacra2  about 30 low, 50 medium, 70 high, 90 visually lossless, from the package
             ssimulacra2; needs no downloaded weights, takes about 2 s per megapixel
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from typing import Any

import numpy as np
from PIL import Image

from aecodec import seen

METRICS = {"psnr": "numpy", "ms_ssim": "pytorch_msssim", "ssimulacra2": "ssimulacra2"}
"""Metric -> the module it needs."""

MS_SSIM_MIN_SIDE = 161


def missing_module(metric: str) -> str | None:
    """The module that `metric` needs and that is not installed, or None."""
    module = METRICS[metric]
    return None if importlib.util.find_spec(module) else module


def measure(metric: str, original: Image.Image, decoded: Image.Image) -> float | None:
    """One metric, rounded to what is meaningful; None where it is not defined."""
    if original.size != decoded.size:
        raise ValueError(f"decoded picture is {decoded.size}, original is {original.size}")
    value = {"psnr": psnr, "ms_ssim": ms_ssim, "ssimulacra2": ssimulacra2}[metric](
        original, decoded
    )
    return None if value is None else round(value, 6)


def psnr(original: Image.Image, decoded: Image.Image) -> float | None:
    """Peak signal-to-noise ratio in dB; None when the pictures are equal (it is infinite)."""
    difference = np.asarray(original, np.int64) - np.asarray(decoded, np.int64)
    squared = int((difference * difference).sum())
    if squared == 0:
        return None
    return 10.0 * math.log10(255.0 * 255.0 * difference.size / squared)


def ms_ssim(original: Image.Image, decoded: Image.Image) -> float | None:
    """Multi-scale structural similarity, mean of the three channels."""
    if min(original.size) < MS_SSIM_MIN_SIDE:
        return None
    torch: Any = importlib.import_module("torch")
    library: Any = importlib.import_module("pytorch_msssim")
    # One thread: sums in a fixed order give the same last digit on every run.
    torch.set_num_threads(1)

    def tensor(image: Image.Image) -> Any:
        pixels = torch.from_numpy(np.array(image, np.float32))
        return pixels.permute(2, 0, 1).unsqueeze(0)

    with torch.inference_mode():
        return float(library.ms_ssim(tensor(original), tensor(decoded), data_range=255.0))


def ms_ssim_db(value: float) -> float:
    """MS-SSIM on the scale it is plotted in: -10 log10(1 - x) dB."""
    return -10.0 * math.log10(max(1.0 - value, 1e-10))


def ssimulacra2(original: Image.Image, decoded: Image.Image) -> float | None:
    """SSIMULACRA 2 score; pictures must have 8 px a side at least."""
    return None if min(original.size) < seen.LEAST_SIDE else seen.score(original, decoded)
