"""Encode and decode a small picture many times and see whether memory grows (Linux).

    python tools/memory_growth.py [CALLS]

Prints the resident memory at intervals; exit status 1 when the second half of the calls added
more than 8 MiB.
"""

from __future__ import annotations

import gc
import os
import sys
import time

import numpy as np

import aecodec

LIMIT = 8 * 2**20  # bytes: allocators keep some slack, a leak of 1 KiB a call would be 5 MiB


def resident() -> int:
    """Bytes of memory that this process holds."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def work(calls: int) -> None:
    """So many encode and decode calls, among them some of damaged data."""
    y, x = np.mgrid[:40, :56]
    for call in range(calls):
        pixels = ((x * (call % 7 + 1) + y * 3) % 256).astype(np.uint8)
        array = np.dstack([pixels] * (call % 4 + 1))
        data = aecodec.encode(array, quality=call % 101)
        aecodec.decode(data)
        try:
            aecodec.decode(data[:-1])
        except aecodec.AecError:
            continue
        raise AssertionError("a file cut short was decoded")


def growth(calls: int, warm_up: int) -> int:
    """Bytes that so many calls add after a warm-up."""
    work(warm_up)
    before = resident()
    work(calls)
    return resident() - before


def main() -> int:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
    start, sizes = time.perf_counter(), []
    for part in range(10):
        work(calls // 10)
        sizes.append(resident())
        seconds = time.perf_counter() - start
        print(f"{calls // 10 * (part + 1):>8} calls {sizes[-1] / 2**20:8.1f} MiB {seconds:8.1f} s")
        sys.stdout.flush()
    added = sizes[-1] - sizes[4]
    print(f"the second half added {added / 2**20:.2f} MiB")
    return 1 if added > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
