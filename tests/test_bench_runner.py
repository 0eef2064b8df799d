"""Benchmark: pictures, codecs, metrics, records and the run itself."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aecodec.bench import codecs, metrics, pictures, records, runner, timing
from aecodec.bench.codecs import REGISTRY
from aecodec.bench.records import Record, Timing

QUALITIES = {"jpeg": (20.0, 40.0, 60.0, 80.0), "webp": (20.0, 40.0, 60.0, 80.0)}


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Noise of several scales: compresses like a picture, not like white noise."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for scale in (2, 8, 32):
        coarse = rng.integers(0, 256, (-(-height // scale), -(-width // scale), 3), np.uint8)
        enlarged = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(enlarged, float) * scale
    return Image.fromarray((total / 42).clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "pictures"
    where.mkdir()
    for seed, name in enumerate(("a.png", "b.png")):
        photograph(72, 48, seed).save(where / name)
    return where


def tasks_of(folder: Path, metric_names: tuple[str, ...] = ("psnr",)) -> list[runner.Task]:
    sources, problems = pictures.find([folder])
    assert not problems
    versions = {name: codecs.probe(name)[0] for name in QUALITIES}
    return runner.plan(sources, versions, QUALITIES, metric_names)


def test_every_available_codec_comes_back_alike() -> None:
    image = photograph(96, 64, 7)
    for name, codec in REGISTRY.items():
        if not codecs.probe(name)[0]:
            continue
        sizes, distances = [], []
        for quality in (20.0, 85.0):
            data = codec.encode(image, quality, 1)
            sizes.append(len(data))
            distances.append(metrics.psnr(image, decoded(codec, data)) or 99.0)
        assert sizes[0] < sizes[1], name
        assert distances[0] < distances[1], name
        assert distances[1] > 24, name


def decoded(codec: codecs.Codec, data: bytes) -> Image.Image:
    with tempfile.TemporaryDirectory() as where:
        path = Path(where, "x" + codec.suffix)
        path.write_bytes(data)
        return codec.decode(path, 1)


def test_avif_stands_for_both_tunings() -> None:
    assert codecs.expand(["jpeg", "avif", "avif"]) == ["jpeg", "avif", "avif-psnr"]
    with pytest.raises(ValueError, match="unknown codec 'gif'"):
        codecs.expand(["gif"])


def test_missing_plugin_is_a_reason_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> bytes:
        raise ImportError("No module named 'pillow_jxl'")

    broken = dataclasses.replace(REGISTRY["jxl"], name="broken", encode=missing)
    monkeypatch.setitem(REGISTRY, "broken", broken)
    version, reason = codecs.probe("broken")
    assert not version
    assert "pillow_jxl" in reason


def test_psnr_by_hand() -> None:
    black = Image.new("RGB", (4, 4))
    assert metrics.psnr(black, black) is None
    one_level = Image.new("RGB", (4, 4), (1, 1, 1))
    assert metrics.psnr(black, one_level) == pytest.approx(20 * np.log10(255))
    white = Image.new("RGB", (4, 4), (255, 255, 255))
    assert metrics.psnr(black, white) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="decoded picture"):
        metrics.measure("psnr", black, Image.new("RGB", (4, 5)))


def test_ms_ssim_is_null_on_small_pictures() -> None:
    small = photograph(160, 200, 1)
    assert metrics.ms_ssim(small, small) is None


def test_ms_ssim_falls_with_distortion() -> None:
    pytest.importorskip("pytorch_msssim")
    image = photograph(176, 164, 1)
    near, far = (decoded(REGISTRY["jpeg"], REGISTRY["jpeg"].encode(image, q, 1)) for q in (90, 10))
    assert 1 > metrics.ms_ssim(image, near) > metrics.ms_ssim(image, far) > 0  # type: ignore[operator]


def test_ssimulacra2_falls_with_distortion() -> None:
    pytest.importorskip("ssimulacra2")
    image = photograph(64, 48, 1)
    near, far = (decoded(REGISTRY["jpeg"], REGISTRY["jpeg"].encode(image, q, 1)) for q in (90, 10))
    assert metrics.ssimulacra2(image, near) > metrics.ssimulacra2(image, far)  # type: ignore[operator]


def test_two_runs_write_equal_files(folder: Path, tmp_path: Path) -> None:
    tasks = tasks_of(folder)
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    runner.run(tasks, first)
    runner.run(list(reversed(tasks)), second)
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_text().splitlines()) == len(tasks) == 16


def test_processes_give_what_one_process_gives(folder: Path, tmp_path: Path) -> None:
    tasks = tasks_of(folder)[:6]
    runner.run(tasks, tmp_path / "1.jsonl", jobs=1)
    runner.run(tasks, tmp_path / "2.jsonl", jobs=2)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()


def test_killed_run_resumes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, path = tasks_of(folder), tmp_path / "records.jsonl"
    runner.run(tasks, tmp_path / "whole.jsonl")
    done: list[str] = []

    def stop_at_six(outcome: runner.Outcome) -> None:
        done.append(str(outcome.task))
        if len(done) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(tasks, path, on_outcome=stop_at_six)
    # A kill may also cut the line that was being written.
    path.write_text(path.read_text() + '{"picture": "b.png", "pix')

    executed: list[str] = []
    execute = runner.execute
    monkeypatch.setattr(runner, "execute", lambda t: executed.append(str(t)) or execute(t))
    kept, failures = runner.run(tasks, path)
    assert executed == [str(task) for task in tasks[6:]]
    assert not failures
    assert len(kept) == len(tasks)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_more_metrics_and_new_versions_are_measured_again(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    runner.run(tasks_of(folder), path)
    wider = tasks_of(folder, ("psnr", "ms_ssim"))
    kept, _ = runner.run(wider, path)
    assert all(record.measured == ("psnr", "ms_ssim") for record in kept)
    assert all(record.ms_ssim is None for record in kept)
    assert '"ms_ssim": null' in path.read_text()
    newer = [dataclasses.replace(task, version="next") for task in wider]
    runner.run(newer, path)
    assert {record.version for record in records.read(path, Record)} == {"next"}


def test_a_failing_codec_leaves_the_rest(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpeg = REGISTRY["jpeg"]

    def fails_on_b(image: Image.Image, quality: float, threads: int) -> bytes:
        if pictures.fingerprint(image) == b_pixels:
            raise RuntimeError("cannot do this one")
        return jpeg.encode(image, quality, threads)

    tasks = tasks_of(folder)
    b_pixels = next(task.source.pixels for task in tasks if task.source.name == "b.png")
    monkeypatch.setitem(REGISTRY, "jpeg", dataclasses.replace(jpeg, encode=fails_on_b))
    kept, failures = runner.run(tasks, tmp_path / "records.jsonl")
    assert len(kept) == 12
    assert [f.task.source.name for f in failures] == ["b.png"] * 4
    assert "cannot do this one" in failures[0].error


def test_pictures_bad_missing_and_twice(tmp_path: Path) -> None:
    one, two, empty = (tmp_path / name for name in ("one", "two", "empty"))
    for where in (one, two, empty):
        where.mkdir()
    photograph(16, 16, 1).save(one / "same.png")
    photograph(16, 16, 2).save(two / "same.png")
    (one / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    (one / "notes.txt").write_text("not a picture")
    sources, problems = pictures.find([one, two, empty])
    assert [source.path for source in sources] == [one / "same.png"]
    assert len(problems) == 3
    for part in ("broken.png: cannot be read", "named same.png", "no pictures in this folder"):
        assert any(part in problem for problem in problems), part


def test_metadata_is_not_given_to_codecs(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    photograph(20, 10, 1).save(tmp_path / "x.jpg", exif=exif, icc_profile=b"profile")
    image = pictures.load(tmp_path / "x.jpg")
    assert image.size == (10, 20)
    assert not image.info
    assert not image.getexif()


def test_timing_has_positive_seconds_and_one_row_per_task(folder: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    path = tmp_path / "times.jsonl"
    tasks = [task for task in tasks_of(folder) if task.codec == "jpeg"][:2]
    rows, problems = timing.run(tasks, path, 1, 1, lambda task, error: heard.append(str(task)))
    assert not problems
    assert len(heard) == 2
    assert all(row.encode_s > 0 and row.decode_s > 0 for row in rows)
    assert {row.key for row in records.read(path, Timing)} == {task.key for task in tasks}


def test_csv_joins_records_and_times(folder: Path, tmp_path: Path) -> None:
    rows, _ = runner.run(tasks_of(folder)[:2], tmp_path / "records.jsonl")
    first = rows[0]
    taken = {f.name: getattr(first, f.name) for f in dataclasses.fields(Timing)
             if hasattr(first, f.name)}  # fmt: skip
    time = Timing(**taken, threads=1, repeats=3, encode_s=0.5, decode_s=0.25)
    records.write_csv(tmp_path / "x.csv", rows, [time])
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("picture,pixels,width,height,codec,quality,bytes,psnr")
    assert sum("0.5,0.25" in line for line in lines) == 1


class DyingPool:
    """A pool whose process dies at quality 60 and takes a waiting task at 80 with it."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def __enter__(self) -> DyingPool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(
        self, call: Callable[[runner.Task], runner.Outcome], task: runner.Task
    ) -> Future[runner.Outcome]:
        future: Future[runner.Outcome] = Future()
        if task.quality == 60 or (task.quality == 80 and self.jobs > 1):
            future.set_exception(BrokenProcessPool())
        else:
            future.set_result(call(task))
        return future


def test_a_codec_that_kills_its_process_loses_one_result_only(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_pool", DyingPool)
    tasks = [task for task in tasks_of(folder) if task.codec == "jpeg"]
    kept, failures = runner.run(tasks, tmp_path / "records.jsonl", jobs=2)
    assert len(kept) == 6
    assert {failure.task.quality for failure in failures} == {60.0}
    assert "process of the codec died" in failures[0].error
