"""SSIMULACRA 2: how alike two pictures look. About 30 low, 50 medium, 70 high, 90 no loss is seen.

It comes from the package of the same name, which nothing else needs. Two seconds per megapixel.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
from typing import TYPE_CHECKING, Any

from aecodec.errors import AecError

if TYPE_CHECKING:
    from PIL import Image

LIBRARY = "ssimulacra2"
LEAST_SIDE = 8  # pixels


def available() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec(LIBRARY) is not None


def score(original: Image.Image, decoded: Image.Image) -> float:
    """That of two RGB pictures of one size; 100 when they are equal. Raises AecError."""
    if min(original.size) < LEAST_SIDE:
        raise AecError(f"SSIMULACRA 2 needs {LEAST_SIDE} pixels a side")
    library: Any = importlib.import_module(LIBRARY)
    files = []
    for image in (original, decoded):
        # The library reads files only; PPM in memory costs a copy and nothing else.
        buffer = io.BytesIO()
        image.save(buffer, "PPM")
        buffer.seek(0)
        files.append(buffer)
    return float(library.compute_ssimulacra2(*files))
