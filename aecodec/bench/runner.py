"""Measures every picture with every codec at every quality, in parallel, resumable.

One task is one file: encode, write, decode back from the file, measure. Tasks of one picture
follow one another so that a worker rarely opens a new original. Finished tasks are appended to
records.jsonl at once; a later run with the same pictures, settings and library versions takes
them from there.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from aecodec.bench import codecs, metrics, pictures, records
from aecodec.bench.pictures import Source
from aecodec.bench.records import Key, Record


@dataclass(frozen=True)
class Task:
    """One file to make and measure."""

    source: Source
    codec: str
    version: str
    quality: float
    metrics: tuple[str, ...]

    @property
    def key(self) -> Key:
        return self.source.name, self.source.pixels, self.codec, self.version, self.quality

    def __str__(self) -> str:
        return f"{self.source.name}: {self.codec} at quality {self.quality:g}"


@dataclass(frozen=True)
class Outcome:
    """What came of a task: a record, or the reason there is none."""

    task: Task
    record: Record | None
    error: str = ""


def plan(
    sources: Sequence[Source],
    versions: Mapping[str, str],
    qualities: Mapping[str, Sequence[float]],
    wanted: Sequence[str],
) -> list[Task]:
    """All tasks of a run, picture by picture."""
    return [
        Task(source, name, version, float(quality), tuple(wanted))
        for source in sources
        for name, version in versions.items()
        for quality in qualities[name]
    ]


def execute(task: Task) -> Outcome:
    """Do one task; every failure of a codec or metric becomes an outcome with its reason."""
    try:
        return Outcome(task, _measure(task))
    # Codecs are other people's code behind plugins: whatever they raise concerns one file only.
    except Exception as error:
        return Outcome(task, None, f"{type(error).__name__}: {error}")


def _measure(task: Task) -> Record:
    codec = codecs.REGISTRY[task.codec]
    original = pictures.load_cached(task.source.path)
    with tempfile.TemporaryDirectory(prefix="aecodec-bench-") as folder:
        path = Path(folder, "picture" + codec.suffix)
        path.write_bytes(codec.encode(original, task.quality, 1))
        size = path.stat().st_size
        decoded = codec.decode(path, 1)
    values = {name: metrics.measure(name, original, decoded) for name in task.metrics}
    return Record(
        picture=task.source.name,
        pixels=task.source.pixels,
        width=task.source.width,
        height=task.source.height,
        codec=task.codec,
        version=task.version,
        quality=task.quality,
        bytes=size,
        measured=tuple(values),
        **values,
    )


def run(
    tasks: Sequence[Task],
    path: Path,
    jobs: int = 1,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> tuple[list[Record], list[Outcome]]:
    """Do what `path` does not hold yet; (records of all tasks, failed outcomes).

    `on_outcome` hears of every task, at once of those that were finished earlier.
    """
    kept = {record.key: record for record in records.read(path, Record)}
    todo: list[Task] = []
    for task in tasks:
        found = kept.get(task.key)
        if found and set(task.metrics) <= set(found.measured):
            on_outcome(Outcome(task, found))
        else:
            todo.append(task)
    failures: list[Outcome] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    _mend_last_line(path)
    with path.open("a", encoding="utf-8") as stream:
        for outcome in _outcomes(todo, jobs):
            if outcome.record is None:
                failures.append(outcome)
            else:
                kept[outcome.record.key] = outcome.record
                records.append(stream, outcome.record)
            on_outcome(outcome)
    # Workers finish in any order; sorted, two runs of the same inputs give the same file.
    current = {(*task.key[:3], task.quality): task.version for task in tasks}
    records.rewrite(path, (row for row in kept.values() if _is_current(row, current)))
    return [kept[task.key] for task in tasks if task.key in kept], failures


def _is_current(row: Record, versions: Mapping[tuple[str, str, str, float], str]) -> bool:
    """False for what an older version of a library made where there is a task for a newer one."""
    return versions.get((*row.key[:3], row.quality), row.version) == row.version


def _mend_last_line(path: Path) -> None:
    """End a line that a killed run cut short, so that the next one starts on its own."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        with path.open("a", encoding="utf-8") as stream:
            stream.write("\n")


def _outcomes(tasks: Iterable[Task], jobs: int) -> Iterator[Outcome]:
    tasks = list(tasks)
    if jobs <= 1:
        yield from map(execute, tasks)
        return
    lost: list[Task] = []
    with _pool(jobs) as pool:
        futures: dict[Future[Outcome], Task] = {pool.submit(execute, task): task for task in tasks}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool:
                lost.append(futures[future])
    # A codec that takes its process down takes waiting tasks with it: each gets its own process
    # then, and only the culprit is left without a result.
    for task in lost:
        with _pool(1) as pool:
            try:
                yield pool.submit(execute, task).result()
            except BrokenProcessPool:
                yield Outcome(task, None, "the process of the codec died")


def _pool(jobs: int) -> ProcessPoolExecutor:
    # Spawned, not forked: the same on every system, and safe beside libraries with threads.
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
