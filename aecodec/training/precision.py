"""Where 16-bit floating point pays: on GPUs, and on processors that multiply in it."""

from __future__ import annotations

import torch

AUTO, HALF, FULL = "auto", "bf16-mixed", "32-true"


def half_pays(device: torch.device | str) -> bool:
    """Whether bfloat16 is the faster choice on a device.

    PyTorch emulates it on processors without AVX-512, some ten to forty times slower than
    float32.
    """
    if torch.device(device).type != "cpu":
        return True
    return bool(torch.backends.cpu.get_cpu_capability().startswith("AVX512"))


def precision(setting: str, device: torch.device | str) -> str:
    """The setting in the names of Lightning Fabric, "auto" decided for the device."""
    if setting != AUTO:
        return setting
    return HALF if half_pays(device) else FULL
