"""Find, verify and open a model: one folder of weights/ per model id.

A folder is named by the first 8 hex digits of the SHA-256 of its model.safetensors, which
holds every weight and every frozen table. The graphs beside it only say how they are used;
manifest.json has their hashes. Folders are looked for in AECODEC_WEIGHTS (if set), in the
installed package, and in the source tree.

Beside the folders stand small text files that give names to ids: `default` is the model that new
files are written with, others (`small`) can be asked for. Readers go by the id in the file alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aecodec.errors import ModelError

STORE = "model.safetensors"
MANIFEST = "manifest.json"
DEFAULT = "default"  # name of the model that new files are written with
VARIABLE = "AECODEC_MODEL"

_lock = threading.Lock()
_open: dict[str, Weights] = {}


def search_path() -> list[Path]:
    """Folders that may hold model folders, in the order in which they are tried."""
    here = Path(__file__).resolve().parent
    extra = os.environ.get("AECODEC_WEIGHTS")
    return ([Path(extra)] if extra else []) + [here / "_weights", here.parent / "weights"]


def available() -> dict[str, Path]:
    """Model ids (8 hex digits) that this installation can open, with their folders."""
    found: dict[str, Path] = {}
    for root in search_path():
        if root.is_dir():
            for folder in sorted(root.iterdir()):
                if (folder / STORE).is_file():
                    found.setdefault(folder.name, folder)
    return found


def names() -> dict[str, str]:
    """Names that this installation gives to models, with the ids that they stand for."""
    found: dict[str, str] = {}
    for root in search_path():
        for file in sorted(root.iterdir()) if root.is_dir() else ():
            if file.name.isidentifier() and file.is_file():
                with contextlib.suppress(OSError), file.open("rb") as stream:
                    match = re.fullmatch(rb"([0-9a-f]{8})\s*", stream.read(16))
                    if match:
                        found.setdefault(file.name, match[1].decode())
    return found


def id_of(model: str = "") -> str:
    """Id of the model to write files with, of a name or an id.

    Without one that of AECODEC_MODEL, else "default". Raises ModelError when it is not installed.
    """
    asked = model or os.environ.get(VARIABLE, "").strip() or DEFAULT
    known = names()
    model_id = known.get(asked, asked)
    if model_id in available():
        return model_id
    if asked == DEFAULT:
        raise ModelError("no weights are installed: reinstall aecodec or set AECODEC_WEIGHTS")
    named = ", ".join(f"{name} ({model_id})" for name, model_id in known.items())
    raise ModelError(f"no model {asked!r} is installed (there are: {named or 'none'})")


def open_weights(model_id: str) -> Weights:
    """The verified model of an id; opened and verified once per process.

    Raises ModelError when it is not installed, or its files are not the ones it was made of.
    """
    with _lock:
        weights = _open.get(model_id)
        if weights is None:
            folder = available().get(model_id)
            if folder is None:
                raise ModelError(
                    f"needs model {model_id}, which is not installed "
                    f"(installed: {', '.join(available()) or 'none'})"
                )
            weights = _open[model_id] = Weights(folder)
            weights.verify()
    return weights


@dataclass(frozen=True, eq=False)
class Weights:
    """One model folder."""

    folder: Path

    @property
    def id(self) -> bytes:
        """The 4 bytes that files carry."""
        return bytes.fromhex(self.folder.name)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What manifest.json says: widths, training, licence, validation, hashes."""
        try:
            manifest: dict[str, Any] = json.loads((self.folder / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            raise ModelError(f"model {self.folder.name}: no readable {MANIFEST}") from error
        return manifest

    def verify(self) -> None:
        """Compare every file with its hash. Raises ModelError naming the first that differs."""
        for name, expected in self.manifest["sha256"].items():
            try:
                data = (self.folder / name).read_bytes()
            except OSError as error:
                raise ModelError(f"model {self.folder.name}: {name} is missing") from error
            if hashlib.sha256(data).hexdigest() != expected:
                raise ModelError(f"model {self.folder.name}: {name} is damaged")
        if not self.manifest["sha256"][STORE].startswith(self.folder.name):
            raise ModelError(f"model {self.folder.name}: the folder's name is not its hash")

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """One tensor by its whole name."""
        from safetensors import safe_open

        with safe_open(self.folder / STORE, "np") as store:
            return np.asarray(store.get_tensor(name))

    def tensors(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        """Tensors whose name starts with prefix + '.', without the prefix."""
        from safetensors import safe_open

        with safe_open(self.folder / STORE, "np") as store:
            start = prefix + "."
            return {
                name.removeprefix(start): np.asarray(store.get_tensor(name))
                for name in store.keys()  # noqa: SIM118 - not a dict
                if name.startswith(start)
            }
