"""Encode and decode times of aecodec, Pillow's codecs and CompressAI's models, side by side.

    python benchmarks/speed.py PICTURES -o speed-results

Every measurement runs in a fresh process, pinned to as many processors as it may use threads, one
after another:

cold    seconds of a process that starts Python, imports, opens the model, does one picture, ends
warm    median of repeats in a process that has done the picture once
peak    highest resident memory of the process in MiB: interpreter, model and picture

Pictures of 0.4, 2 and 12 megapixels, or of 100 if asked for, are laid like tiles from the
pictures given. CompressAI's models run with untrained weights: the work per pixel is that of
trained ones, the bytes are not. Seconds are those of one machine; the ratios in one run are what
travels. A run that was stopped goes on with what is missing in its folder.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from PIL import Image

from aecodec.bench import codecs, pictures, provenance

COMPRESSAI = ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "cheng2020-anchor")
SIZES = {"0.4": (768, 512), "2": (1632, 1224), "12": (4000, 3000), "100": (12288, 8192)}
QUALITY = 50
KEY = ("codec", "megapixels", "threads", "repeats", "version")  # what a row is the figures of
MODES = ("warm", "cold-encode", "cold-decode")

Call = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """One process to run."""

    codec: str
    megapixels: str
    threads: int
    repeats: int
    picture: str = ""
    file: str = ""
    mode: str = "warm"


# --- inside the measured process --------------------------------------------------------------


def work(job: Job) -> dict[str, Any]:
    """Do one job in this process and return what was seen."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))[: job.threads]
        os.sched_setaffinity(0, allowed)
    compressor, decompressor = _adapters(job)
    if job.mode == "cold-decode":
        decompressor()
        return {}
    encode = [_seconds(compressor)]
    if job.mode == "cold-encode":
        return {}
    decode = [_seconds(decompressor)]
    encode += [_seconds(compressor) for _ in range(job.repeats)]
    decode += [_seconds(decompressor) for _ in range(job.repeats)]
    return {
        # The first call warms up and counts only when there is no other.
        "encode_s": statistics.median(encode[1:] or encode),
        "decode_s": statistics.median(decode[1:] or decode),
        "bytes": Path(job.file).stat().st_size,
    }


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _adapters(job: Job) -> tuple[Call, Call]:
    """(encode the picture into job.file, decode job.file), both without arguments."""
    decodes_only = job.mode == "cold-decode"
    image = Image.new("RGB", (1, 1)) if decodes_only else pictures.load(Path(job.picture))
    if job.codec in COMPRESSAI:
        return _compressai(job, image)
    codec = codecs.REGISTRY[job.codec]
    file = Path(job.file)

    def compress() -> None:
        file.write_bytes(codec.encode(image, QUALITY, job.threads))

    return compress, lambda: codec.decode(file, job.threads)


def _compressai(job: Job, image: Image.Image) -> tuple[Call, Call]:
    torch: Any = importlib.import_module("torch")
    numpy: Any = importlib.import_module("numpy")
    zoo: Any = importlib.import_module("compressai.zoo")
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    model = zoo.image_models[job.codec](quality=3, pretrained=False).eval()
    model.update(force=True)
    file = Path(job.file)

    def compress() -> None:
        pixels = torch.from_numpy(numpy.array(image)).permute(2, 0, 1).unsqueeze(0).float() / 255
        right, bottom = -image.width % 64, -image.height % 64
        padded = torch.nn.functional.pad(pixels, (0, right, 0, bottom), mode="replicate")
        with torch.inference_mode():
            out = model.compress(padded)
        strings = [each[0] for each in out["strings"]]
        # The file keeps lengths so that decoding reads real bytes, as the other codecs do.
        head = json.dumps([list(out["shape"]), [len(each) for each in strings]]).encode()
        file.write_bytes(head + b"\n" + b"".join(strings))

    def decompress() -> None:
        head, _, rest = file.read_bytes().partition(b"\n")
        shape, lengths = json.loads(head)
        strings, at = [], 0
        for length in lengths:
            strings.append([rest[at : at + length]])
            at += length
        with torch.inference_mode():
            pixels = model.decompress(strings, shape)["x_hat"].clamp(0, 1)
        (pixels[0] * 255).round().byte().permute(1, 2, 0).numpy()

    return compress, decompress


# --- the process that measures ----------------------------------------------------------------


def measure(job: Job, limit: float) -> dict[str, Any]:
    """Run one job in a fresh process; seconds, memory, or why there are none."""
    # The package may be a checkout that is not installed.
    root = str(Path(codecs.__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "PYTHONPATH": path}
    command = [sys.executable, __file__, "--worker", json.dumps(asdict(job))]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {limit:g} s"}
    seconds = time.perf_counter() - start
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"exit status {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "process_s": seconds}


def mosaic(sources: list[Path], size: tuple[int, int]) -> Image.Image:
    """A picture of the wanted size laid from the pictures given, each at its own scale."""
    canvas = Image.new("RGB", size)
    y, index = 0, 0
    while y < size[1]:
        x, row = 0, 0
        while x < size[0]:
            tile = pictures.load(sources[index % len(sources)])
            canvas.paste(tile, (x, y))
            x, row, index = x + tile.width, max(row, tile.height), index + 1
        y += row
    return canvas


def jobs(names: list[str], sizes: list[str], threads: list[int], repeats: int) -> Iterator[Job]:
    """Smallest pictures first, codecs in turn, so that an early stop has compared something."""
    for megapixels in sizes:
        for count in threads:
            for name in names:
                slow = name == "cheng2020-anchor"  # decodes pixel by pixel
                yield Job(name, megapixels, count, 0 if slow else repeats)


def run_job(job: Job, folder: Path, limit: float) -> dict[str, Any]:
    """Warm and cold figures of one codec, size and number of threads."""
    picture, file = folder / f"{job.megapixels}.ppm", folder / f"{job.codec}.file"
    row: dict[str, Any] = {k: v for k, v in asdict(job).items() if k in KEY}
    for mode in MODES:
        placed = {**asdict(job), "picture": str(picture), "file": str(file), "mode": mode}
        found = measure(Job(**placed), limit)
        if "error" in found:
            return {**row, "error": found["error"]}
        if mode == "warm":
            row |= {k: found[k] for k in ("encode_s", "decode_s", "bytes", "peak_mib")}
        else:
            row[mode.replace("-", "_") + "_s"] = found["process_s"]
    return row


def version(name: str) -> str:
    """Version of a codec's library; rows of another one are not reused."""
    if name in COMPRESSAI:
        return f"compressai {importlib.metadata.version('compressai')}"
    return codecs.REGISTRY[name].version()


def measured(file: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Rows of earlier runs by what they measured, but for those that failed."""
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {tuple(row.get(k) for k in KEY): row for row in rows if "error" not in row}


def table(rows: list[dict[str, Any]]) -> str:
    """Seconds and, in brackets, the ratio to the first codec, for each size and thread count."""
    columns = ["encode_s", "decode_s", "cold_encode_s", "cold_decode_s"]
    parts = []
    for key in dict.fromkeys((row["megapixels"], row["threads"]) for row in rows):
        group = [row for row in rows if (row["megapixels"], row["threads"]) == key]
        first = next((row for row in group if "error" not in row), None)
        parts.append(f"\n### {key[0]} megapixels, {key[1]} threads\n")
        parts.append("| codec | encode s | decode s | cold encode s | cold decode s | peak MiB |")
        parts.append("| :--- | ---: | ---: | ---: | ---: | ---: |")
        for row in group:
            if first is None or "error" in row:
                parts.append(f"| {row['codec']} | {row['error']} | | | | |")
                continue
            cells = [f"{row[name]:.3f} ({row[name] / first[name]:.2f})" for name in columns]
            parts.append(f"| {row['codec']} | {' | '.join(cells)} | {row['peak_mib']:.0f} |")
    return "\n".join(parts) + "\n"


def _split(ctx: click.Context, param: click.Parameter, value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--codecs", "names", callback=_split,
    default="aec,jpeg,jpeg2000,webp,avif,avif-psnr,heic,jxl," + ",".join(COMPRESSAI))  # fmt: skip
@click.option("--sizes", default="0.4,2,12", callback=_split, show_default=True,
    help="Megapixels: of " + ", ".join(SIZES))  # fmt: skip
@click.option("--threads", default="1,2", callback=_split)
@click.option("--repeats", default=5, type=click.IntRange(1))
@click.option("--limit", default=600.0, help="Seconds one process may take.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("speed-results"))
@click.option("--worker", hidden=True)
def main(
    paths: tuple[Path, ...],
    names: list[str],
    sizes: list[str],
    threads: list[str],
    repeats: int,
    limit: float,
    output: Path,
    worker: str | None,
) -> None:
    """Measure times on pictures laid from PATHS."""
    if worker:
        import resource

        found = work(Job(**json.loads(worker)))
        # ru_maxrss is in KiB on Linux and in bytes on macOS.
        unit = 2.0**20 if sys.platform == "darwin" else 2.0**10
        found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        click.echo(json.dumps(found))
        return
    sources, problems = pictures.find(paths)
    if not sources or problems:
        raise click.ClickException("; ".join(problems) or "no pictures given")
    output.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    before = measured(output / "speed.jsonl")
    with (
        tempfile.TemporaryDirectory(prefix="aecodec-speed-") as folder,
        (output / "speed.jsonl").open("a", encoding="utf-8") as stream,
    ):
        for size in sizes:
            mosaic([s.path for s in sources], SIZES[size]).save(Path(folder, f"{size}.ppm"))
        todo = list(jobs(names, sizes, [int(count) for count in threads], repeats))
        with click.progressbar(todo, label="speed", show_pos=True) as bar:
            for job in bar:
                known = asdict(job) | {"version": version(job.codec)}
                row = before.get(tuple(known[k] for k in KEY))
                if row is None:
                    row = run_job(job, Path(folder), limit) | {"version": known["version"]}
                    stream.write(json.dumps(row) + "\n")
                    stream.flush()
                rows.append(row)
    described = provenance.describe({}, {"quality": QUALITY, "repeats": repeats})
    provenance.write(output / "run.json", described)
    text = (
        "# Speed\n\nMedian seconds; in brackets the ratio to the first row. Measured on "
        f"{provenance.processor()}: seconds are of that machine, ratios travel better. "
        f"CompressAI's models run untrained.\n{table(rows)}"
    )
    (output / "speed.md").write_text(text, "utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
