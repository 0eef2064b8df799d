"""aecodec: a learned lossy image codec with a real file format (.aec).

    data = aecodec.encode(image, quality=75)    # PIL image or uint8 array -> bytes
    image = aecodec.decode(data)                # bytes -> PIL image
    aecodec.compress("in.png", "out.aec")
    aecodec.decompress("out.aec", "back.png")
    y_hat = aecodec.latents(image)              # quantised latents: features (M, h, w)
    y_hat = aecodec.read_latents(data)          # those of a file, without making pixels

Every error is an `aecodec.AecError`. Nothing heavy is loaded until the first call.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from aecodec.errors import AecError

if TYPE_CHECKING:
    from aecodec.api import Info, compress, decode, decompress, encode, info
    from aecodec.features import latents, read_latents

__version__ = "0.1.0"
__all__ = [
    "AecError", "Info", "compress", "decode", "decompress", "encode", "info", "latents",
    "read_latents",
]  # fmt: skip
_FEATURES = ("latents", "read_latents")


def __getattr__(name: str) -> object:
    # Pillow and NumPy take a tenth of a second: a program that only asks for the version or
    # for `info` does not wait for them.
    if name in __all__:
        module = "aecodec.features" if name in _FEATURES else "aecodec.api"
        return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'aecodec' has no attribute {name!r}")
