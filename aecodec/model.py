"""One model, ready to code: its networks on a runtime, and its frozen tables."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aecodec.devices import device_name, open_networks
from aecodec.entropy import TableSet
from aecodec.hyper import HyperTables, hyper_tables
from aecodec.prior import STEPS, Prior, PriorTables
from aecodec.quantise import shifts
from aecodec.transforms import OnnxNetworks, default_threads
from aecodec.weights import Weights, id_of, open_weights


@dataclass(frozen=True, eq=False)
class Model:
    """One model, ready to code: networks and frozen tables."""

    weights: Weights
    networks: OnnxNetworks
    prior: PriorTables
    y_tables: TableSet
    hyper: HyperTables
    halo: int  # pixels, a multiple of 16, that the transforms see beyond a tile
    rates: npt.NDArray[np.int64] | None = None  # of hidden signs: see `aecodec.hiding`

    def at(self, quality: int, grey: bool) -> Prior:
        """The probability model at a quality in hundredths."""
        return Prior(self.prior, self.networks, quality, grey)

    @functools.cached_property
    def shifts(self) -> npt.NDArray[np.float32]:
        """Table of `aecodec.quantise`: where each scale level rounds up."""
        return shifts(self.y_tables.frequencies, self.y_tables.starts)

    @functools.cached_property
    def worth(self) -> npt.NDArray[np.float32]:
        """(M,): what an error in each channel counts for an encoder, beside its squared error."""
        found = self.weights.tensors("encoder").get("worth")
        return np.ones(len(self.prior.luma), np.float32) if found is None else found


_opening = threading.Lock()


def open_model(model_id: str = "", threads: int = 0, device: str = "") -> Model:
    """The model of an id ("": the one new files use), opened once per thread count.

    device: "cpu", "cuda" or "auto"; "" takes AECODEC_DEVICE, else the CPU. Raises ModelError
    when the model is not installed or damaged, or the device is not there.
    """
    name = device_name(device)
    with _opening:
        return _open_model(model_id or id_of(), threads or default_threads(), name)


@functools.lru_cache(maxsize=8)
def _open_model(model_id: str, threads: int, device: str) -> Model:
    weights = open_weights(model_id)
    t = weights.tensors("tables")
    prior = PriorTables(
        gain=t["gain"].astype(np.int64),
        inverse=t["inverse"].astype(np.int64),
        shift=t["shift"].astype(np.int64),
        vector=t["vector"].astype(np.int64),
        luma=t["luma"].astype(bool),
        levels=len(t["y_sizes"]),
        offsets={
            step: t[name].astype(np.int64)
            for step in range(STEPS)
            if (name := f"predictor_{step}") in t
        },
    )
    networks = open_networks(weights.folder, weights.tensors("vectors"), threads, device)
    return Model(
        weights,
        networks,
        prior,
        TableSet(t["y_frequencies"], t["y_sizes"], skip_first=True),
        hyper_tables(t, int(weights.manifest["config"]["Z"])),
        halo=_halo(weights.manifest["config"]),
        rates=t["hiding"].astype(np.int64) if "hiding" in t else None,
    )


def _halo(config: dict[str, int]) -> int:
    """Reach of the lapped transform (8 pixels) and of the 3x3 convolutions, in whole latents."""
    encoder = 8 + 8 * config["enc_blocks8"] + 16 * config["enc_blocks16"]
    decoder = 8 + 8 * config["dec_blocks8"] + 16 * config["dec_blocks16"]
    convolutions = 2 + config["filter_layers"] + 2 * config.get("filter_blocks", 0)
    decoder += 2 * convolutions  # at half resolution
    return -(-max(encoder, decoder) // 16) * 16


def _forget_models() -> None:
    """In a forked child: open models anew, for the threads of a runtime do not live there."""
    global _opening, _open_model
    _opening = threading.Lock()  # another thread may have held it
    # Closing the parent's sessions would wait for ever for their threads: keep them unused.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_open_model))
    _open_model = functools.lru_cache(maxsize=8)(_open_model.__wrapped__)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_models)
