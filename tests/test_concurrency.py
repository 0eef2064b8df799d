"""Many threads, forked and spawned processes: the bytes of serial work, and no standstill."""

from __future__ import annotations

import hashlib
import importlib.util
import multiprocessing
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import synthetic

from aecodec import codec
from aecodec import model as models

CASES = [("L", 20, 33), ("RGB", 70, 40), ("LA", 64, 64), ("RGBA", 17, 90)]
TOOL = Path(__file__).resolve().parent.parent / "tools" / "memory_growth.py"


def there_and_back(case: int) -> tuple[str, bytes]:
    """(digest of the file, decoded pixels) of one of the cases."""
    source = synthetic.picture(*CASES[case % len(CASES)])
    data = codec.encode_picture(source, 60 + case % len(CASES))
    return hashlib.sha256(data).hexdigest(), codec.decode_file(data).pixels.tobytes()


def assert_equal(seen: tuple[str, bytes], expected: tuple[str, bytes]) -> None:
    assert seen[0] == expected[0]
    one, other = (np.frombuffer(x[1], np.uint8).astype(int) for x in (seen, expected))
    assert np.abs(one - other).max() <= 1


@pytest.fixture(scope="module")
def serial() -> list[tuple[str, bytes]]:
    return [there_and_back(case) for case in range(len(CASES))]


def test_eight_threads_at_once(serial: list[tuple[str, bytes]]) -> None:
    start = threading.Barrier(8)

    def work(case: int) -> tuple[str, bytes]:
        if case < 8:
            start.wait(60)
        return there_and_back(case)

    with ThreadPoolExecutor(8) as pool:
        for case, seen in enumerate(pool.map(work, range(16))):
            assert_equal(seen, serial[case % len(CASES)])


def test_first_call_from_eight_threads(serial: list[tuple[str, bytes]]) -> None:
    """All of them find no model open, and one opens it."""
    models._open_model.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        for case, seen in enumerate(pool.map(there_and_back, range(8))):
            assert_equal(seen, serial[case % len(CASES)])
    assert models._open_model.cache_info().misses == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_after_fork(serial: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of a process whose runtime has threads works, and ends."""
    monkeypatch.setenv("AECODEC_THREADS", "2")
    there_and_back(1)
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        results = pool.map_async(there_and_back, range(4)).get(timeout=300)
    for case, seen in enumerate(results):
        assert_equal(seen, serial[case])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if there_and_back(0)[0] == serial[0][0] else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert_equal(there_and_back(2), serial[2])  # the parent works on


def test_spawned(serial: list[tuple[str, bytes]]) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        results = pool.map_async(there_and_back, range(4)).get(timeout=300)
    for case, seen in enumerate(results):
        assert_equal(seen, serial[case])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow() -> None:
    spec = importlib.util.spec_from_file_location("memory_growth", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.growth(calls=60, warm_up=30) < 8 * 2**20
