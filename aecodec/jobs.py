"""One file at a time, or many at once: read, code, write, report.

    Job -> compress or decompress -> Outcome (ok, skipped, damaged or failed; never an exception)
    run: jobs -> worker threads -> Outcomes as they come

Everything of weight (NumPy, Pillow, the networks) is imported by the first job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from aecodec import container, files, rate
from aecodec.batch import PIPE, Job
from aecodec.errors import AecError, FileError, PictureError

if TYPE_CHECKING:
    from aecodec.picture import Picture

FORMATS = {  # what --format takes -> (Pillow's name, suffix)
    "png": ("PNG", ".png"),
    "jpeg": ("JPEG", ".jpg"),
    "jpg": ("JPEG", ".jpg"),
    "webp": ("WEBP", ".webp"),
    "avif": ("AVIF", ".avif"),
    "tiff": ("TIFF", ".tiff"),
    "bmp": ("BMP", ".bmp"),
    "ppm": ("PPM", ".ppm"),
}
_BY_SUFFIX = {suffix: name for name, suffix in FORMATS.values()}
_BY_SUFFIX |= {".jpeg": "JPEG", ".tif": "TIFF"}


@dataclass(frozen=True)
class Writing:
    """What may happen to outputs that exist already."""

    force: bool = False
    skip_existing: bool = False


@dataclass(frozen=True)
class Compression:
    """How pictures become .aec files. `verify` decodes each result back and measures PSNR.

    effort, model, time_limit: see `aecodec.codec.Encoder`. progress: told how far an encoding is,
    0 to 1.
    """

    quality: float = rate.DEFAULT_QUALITY
    target: rate.Target | None = None
    metadata: str = "all"
    max_pixels: int = container.MAX_PIXELS
    first_frame: bool = False
    verify: bool = True
    threads: int = 0
    effort: int | None = None
    model: str = ""
    time_limit: float = 0.0
    progress: Callable[[float], None] | None = None


@dataclass(frozen=True)
class Decompression:
    """How .aec files become pictures. `format` is a key of FORMATS or "" for the suffix's."""

    format: str = ""
    max_pixels: int = container.MAX_PIXELS
    best_effort: bool = False
    threads: int = 0


Settings = TypeVar("Settings", Compression, Decompression)


@dataclass(frozen=True)
class Outcome:
    """What became of a job. `report` has the figures, `message` what is wrong, fault by line."""

    job: Job
    status: str  # ok, skipped, damaged, failed
    report: dict[str, Any] = field(default_factory=dict)
    message: str = ""


class Gate:
    """Lets files be written until it is closed, which waits for those being written."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._writers = 0
        self.closed = False

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the gate open; blocks for ever once it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: not self.closed)
            self._writers += 1
        try:
            yield
        finally:
            with self._changed:
                self._writers -= 1
                self._changed.notify_all()

    def close(self) -> None:
        """No file is half written when this returns, and none is begun after it."""
        with self._changed:
            self.closed = True
            self._changed.wait_for(lambda: not self._writers)


gate = Gate()


def run(
    jobs: Sequence[Job],
    work: Callable[[Job], Outcome],
    workers: int,
    report: Callable[[Outcome], None],
) -> None:
    """Do the jobs on so many threads; `report` is called in this one as they finish."""
    if min(workers, len(jobs)) < 2:
        for job in jobs:
            report(work(job))
        return
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    finished: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def labour() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                finished.put(work(waiting.get_nowait()))

    # Daemons: an interrupt must end the program in the middle of a large picture.
    for _ in range(min(workers, len(jobs))):
        threading.Thread(target=labour, daemon=True).start()
    for _ in jobs:
        report(_next(finished))


def _next(finished: queue.SimpleQueue[Outcome]) -> Outcome:
    while True:
        with contextlib.suppress(queue.Empty):
            # Windows does not deliver Ctrl-C to a thread that waits without a limit.
            return finished.get(timeout=0.5)


def share_cores(settings: Settings, workers: int) -> Settings:
    """The settings with the cores divided among so many workers."""
    return dataclasses.replace(settings, threads=max(1, cores() // workers) if workers > 1 else 0)


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compress(settings: Compression, writing: Writing) -> Callable[[Job], Outcome]:
    """The work of compressing one picture."""
    return functools.partial(_attempt, functools.partial(_compress, settings), writing)


def decompress(settings: Decompression, writing: Writing) -> Callable[[Job], Outcome]:
    """The work of decompressing one file."""
    return functools.partial(_attempt, functools.partial(_decompress, settings), writing)


def _attempt(
    work: Callable[[Job, Writing], Outcome],
    writing: Writing,
    job: Job,
) -> Outcome:
    """The outcome of a job, whatever happens on the way."""
    try:
        if writing.skip_existing and job.target != PIPE and os.path.exists(job.target):
            return Outcome(job, "skipped")
        return work(job, writing)
    except FileError as error:  # names its file, which may be the source or the target
        return Outcome(job, "failed", message=str(error))
    except AecError as error:
        return Outcome(job, "failed", message=f"{_name(job)}: {error}")
    except BrokenPipeError:  # nobody reads on: not a fault, and nothing is left to say
        raise
    except MemoryError:
        return Outcome(job, "failed", message=f"{_name(job)}: not enough memory")
    except Exception as error:
        if os.environ.get("AECODEC_DEBUG"):
            traceback.print_exc()
        said = " ".join(str(error).split())
        what = f"internal error: {type(error).__name__}: {said} (AECODEC_DEBUG=1 shows where)"
        return Outcome(job, "failed", message=f"{_name(job)}: {what}")


def _compress(settings: Compression, job: Job, writing: Writing) -> Outcome:
    _check_target(job, writing)
    source = _read(job)
    if container.is_aec(source):
        raise PictureError("is an .aec file already")
    size, start = len(source), time.perf_counter()
    from aecodec import codec, picture

    loaded = picture.load(source, settings.max_pixels, first_frame=settings.first_frame)
    del source  # a large picture's file is large too
    encoder = codec.Encoder(
        loaded,
        metadata=settings.metadata,
        threads=settings.threads,
        effort=settings.effort,
        model=settings.model,
        time_limit=settings.time_limit,
        report=settings.progress,
        keep=settings.verify or settings.target is not None,
    )
    target, quality = settings.target, settings.quality
    hit = (
        rate.meet(target, loaded, encoder) if target else rate.Hit(encoder.encode(quality), quality)
    )
    seconds = time.perf_counter() - start
    psnr = encoder.verify(hit.data) if settings.verify else hit.psnr
    _write(job, hit.data, writing)
    report = _figures(job, loaded, len(hit.data)) | {"source_bytes": size}
    report |= {"quality": round(hit.quality, 2), "seconds": round(seconds, 3)}
    header = container.read_header(hit.data, container.MAX_SIDE**2)
    report |= {"exact": header.exact, "layered": header.layered}
    known = {"psnr": psnr, "ssimulacra2": hit.ssimulacra2}
    return Outcome(job, "ok", report | {name: x for name, x in known.items() if x is not None})


def _decompress(settings: Decompression, job: Job, writing: Writing) -> Outcome:
    format = _format(settings.format, job)
    _check_target(job, writing)
    source = _read(job)
    start = time.perf_counter()
    from aecodec import codec, picture

    limits: dict[str, int] = {"max_pixels": settings.max_pixels, "threads": settings.threads}
    message = ""
    if settings.best_effort:
        decoded, damage = codec.decode_damaged(source, **limits)
        message = "\n".join(f"{_name(job)}: {line}" for line in damage.lines())
    else:
        decoded = codec.decode_file(source, **limits)
    out = io.BytesIO()
    picture.save(decoded, out, format)
    _write(job, out.getvalue(), writing)
    report = _figures(job, decoded, len(source))
    report |= {"seconds": round(time.perf_counter() - start, 3)}
    return Outcome(job, "damaged" if message else "ok", report, message)


def _figures(job: Job, picture: Picture, size: int) -> dict[str, Any]:
    """What is said of both directions; size is that of the .aec file."""
    grey = picture.pixels.ndim == 2
    return {
        "path": job.source,
        "out": job.target,
        "width": picture.width,
        "height": picture.height,
        "mode": ("L" if grey else "RGB") + ("" if picture.alpha is None else "A"),
        "bytes": size,
        "bpp": round(8 * size / (picture.width * picture.height), 5),
    }


def _name(job: Job) -> str:
    return "standard input" if job.source == PIPE else job.source


def _format(wanted: str, job: Job) -> str:
    """Pillow's name of the format to write, before any time is spent on decoding."""
    if wanted or job.target == PIPE:
        return FORMATS[wanted or "png"][0]
    suffix = os.path.splitext(job.target)[1].lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    from PIL import Image

    Image.init()
    format = Image.registered_extensions().get(suffix)
    if not suffix:
        raise PictureError("the output's name has no suffix: give one, or --format")
    if format not in Image.SAVE:
        raise PictureError(f"no picture format to write is known by the suffix {suffix!r}")
    return str(format)


def _check_target(job: Job, writing: Writing) -> None:
    """Refuse early what cannot be written, so that nobody waits for it."""
    if job.target == PIPE:
        if sys.stdout is not None and sys.stdout.isatty():
            raise FileError("standard output is a terminal: binary data is not written to it")
        return
    if not writing.force and os.path.isfile(job.target):
        raise FileError(f"{job.target}: already exists (-f replaces it)")
    folder = os.path.dirname(job.target) or "."
    if not job.in_folder and not os.path.isdir(folder):
        raise FileError(f"{job.target}: the folder {folder} does not exist")


def _read(job: Job) -> bytes:
    if job.source != PIPE:
        return files.read_bytes(job.source)
    if sys.stdin is None:
        raise FileError("standard input: is closed")
    if sys.stdin.isatty():
        raise FileError("standard input: is a terminal, and not a file or a pipe")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise FileError(f"standard input: {files.reason(error)}") from error


def _write(job: Job, data: bytes, writing: Writing) -> None:
    if job.target != PIPE:
        with gate.writing():
            if job.in_folder:
                _make_folder(os.path.dirname(job.target))
            regular = os.path.isfile(job.target)  # devices are never replaced, so never refused
            files.write_atomically(job.target, data, overwrite=writing.force or not regular)
        return
    if sys.stdout is None:
        raise FileError("standard output: is closed")
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError(f"standard output: {files.reason(error)}") from error


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be made: {files.reason(error)}") from error
