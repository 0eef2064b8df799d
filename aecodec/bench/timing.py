"""Seconds and memory of encoding and decoding: one file at a time, each codec in its own process.

Only the codec is timed: bytes of a file in memory on one side, an RGB picture on the other. One
call warms up, then the median of the repeats counts. Figures are those of one machine at one
load; ratios between codecs of one run travel better than seconds.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from aecodec.bench import codecs, pictures, records
from aecodec.bench.records import Timing
from aecodec.bench.runner import Task

OnTiming = Callable[[Task, str], None]


def reset_peak() -> bool:
    """Make the kernel's high-water mark of resident memory start again; Linux only."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_mib() -> float | None:
    """High-water mark of this process's resident memory in MiB; None where unknown."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024.0
    return None


def time_task(task: Task, repeats: int, threads: int) -> Timing:
    """Encode and decode one picture `repeats` times after a warm-up."""
    codec = codecs.REGISTRY[task.codec]
    original = pictures.load_cached(task.source.path)
    with tempfile.TemporaryDirectory(prefix="aecodec-bench-") as folder:
        path = Path(folder, "picture" + codec.suffix)
        path.write_bytes(codec.encode(original, task.quality, threads))
        codec.decode(path, threads)
        fresh = reset_peak()
        encode = [
            _seconds(lambda: codec.encode(original, task.quality, threads)) for _ in range(repeats)
        ]
        decode = [_seconds(lambda: codec.decode(path, threads)) for _ in range(repeats)]
    peak = peak_mib() if fresh else None
    return Timing(
        picture=task.source.name,
        pixels=task.source.pixels,
        width=task.source.width,
        height=task.source.height,
        codec=task.codec,
        version=task.version,
        quality=task.quality,
        threads=threads,
        repeats=repeats,
        encode_s=round(statistics.median(encode), 6),
        decode_s=round(statistics.median(decode), 6),
        peak_mib=None if peak is None else round(peak, 1),
    )


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def run(
    tasks: Sequence[Task], path: Path, repeats: int, threads: int, on_timing: OnTiming
) -> tuple[list[Timing], list[str]]:
    """Time what `path` does not hold yet, one after another; (timings, what failed)."""
    kept = {timing.key: timing for timing in records.read(path, Timing)}
    problems: list[str] = []
    with path.open("a", encoding="utf-8") as stream:
        for name in dict.fromkeys(task.codec for task in tasks):
            own = [task for task in tasks if task.codec == name]
            # A process of its own keeps one codec's memory out of another codec's peak.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                for task in own:
                    error = ""
                    found = kept.get(task.key)
                    if not found or (found.repeats, found.threads) != (repeats, threads):
                        try:
                            timing = pool.submit(time_task, task, repeats, threads).result()
                        except BrokenProcessPool:
                            problems.append(f"{task}: not timed: the process of the codec died")
                            break
                        # As in rate runs: another codec's failure concerns one file only.
                        except Exception as failure:
                            error = f"{task}: not timed: {type(failure).__name__}: {failure}"
                            problems.append(error)
                        else:
                            kept[timing.key] = timing
                            records.append(stream, timing)
                    on_timing(task, error)
    records.rewrite(path, kept.values())
    return [kept[task.key] for task in tasks if task.key in kept], problems
