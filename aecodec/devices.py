"""Which runtime computes the networks: ONNX Runtime on the CPU, or a CUDA device.

The choice does not show in a file: symbols are the same everywhere (docs/determinism.md).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aecodec.errors import ModelError
from aecodec.transforms import OnnxNetworks

DEVICES = ("cpu", "cuda", "auto")
VARIABLE = "AECODEC_DEVICE"


def device_name(device: str = "") -> str:
    """The device asked for: the argument, else AECODEC_DEVICE, else "cpu". Raises ModelError."""
    name = device or os.environ.get(VARIABLE, "").strip().lower() or "cpu"
    if name not in DEVICES:
        raise ModelError(f"device {name!r} is not known: take {', '.join(DEVICES)}")
    return name


def open_networks(
    folder: Path, vectors: Mapping[str, npt.NDArray[np.float32]], threads: int, device: str
) -> OnnxNetworks:
    """The networks of a model folder on a device of DEVICES.

    "cuda" takes PyTorch if it finds a device, else the CUDA provider of onnxruntime-gpu.
    "auto" does the same and falls back to the CPU. Raises ModelError without the device.
    """
    if device == "cpu":
        return OnnxNetworks(folder, vectors, threads)
    if _torch_has_cuda():
        from aecodec.torch_networks import TorchNetworks

        return TorchNetworks(folder, vectors, "cuda")
    if _onnxruntime_has_cuda():
        networks = OnnxNetworks(folder, vectors, threads, cuda=True)
        try:
            networks.open("hyper_analysis")  # the provider is there: is there a device?
        except ModelError:
            if device != "auto":
                raise
        else:
            return networks
    if device == "auto":
        return OnnxNetworks(folder, vectors, threads)
    raise ModelError(
        "device cuda: neither PyTorch nor onnxruntime-gpu finds a CUDA device here "
        "(the cpu decodes and writes the same files)"
    )


def _torch_has_cuda() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    try:
        import torch
    except (ImportError, OSError):  # a wheel whose libraries do not fit this machine
        return False
    return bool(torch.cuda.is_available())


def _onnxruntime_has_cuda() -> bool:
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
