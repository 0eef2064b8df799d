"""The memory that graphs share: given back when they close, and never shared with a fork."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import aecodec
from aecodec import arena

# Memory is what the kernel says that a process holds, in MiB, after each of three things.
PROGRAM = """
import gc, numpy as np, aecodec
from aecodec.model import open_model
def held():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20
open_model().networks.hyper_synthesis(np.zeros((1, 96, 1, 1), np.float32))
first = held()
networks = open_model().networks
y_hat = np.zeros((384, 96, 96), np.float32)
networks.synthesis(y_hat, 5000)
used = held()
networks.close()
print(first, used, held())
"""


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (70, 90, 3), dtype=np.uint8)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks the kernel for memory")
def test_closing_gives_back_what_graphs_shared() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    first, used, closed = map(int, done.stdout.split())
    assert used - first > 100  # the filter's activations of 2.4 megapixels
    assert closed - first < (used - first) / 3


def _coded(shares: bool) -> tuple[bool, bytes]:
    data = aecodec.encode(picture(), 40)
    return arena.shares() == shares, data


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_memory_of_its_own() -> None:
    """Another thread of the parent may hold the lock of the shared one for ever."""
    ours = _coded(True)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        theirs = pool.apply_async(_coded, (False,)).get(60)
    assert ours[0]
    assert theirs == (True, ours[1])
