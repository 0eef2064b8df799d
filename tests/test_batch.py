"""Which files a command line means, and that many of them are done as they should be."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aecodec import batch, jobs
from aecodec.batch import Job, UsageError, compressing, decompressing, plan, split_output

MAGIC = b"\x89AEC\x01"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str, data: bytes = b"") -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)


def pairs(made: batch.Plan) -> dict[str, str]:
    return {job.source.replace(os.sep, "/"): job.target.replace(os.sep, "/") for job in made.jobs}


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["a.png"], None),
        (["a.png", "b.png"], None),
        (["a.png", "b.aec"], "b.aec"),
        (["a.png", "B.AEC"], "B.AEC"),
        (["a.png", "-"], "-"),
        (["-", "b.aec"], "b.aec"),
        (["-"], None),
        (["a.png", "folder"], "folder"),
        (["a.png", "new/"], "new/"),
        (["folder"], None),
        (["b.aec"], None),
    ],
)
def test_the_last_argument_when_compressing(arguments: list[str], output: str | None) -> None:
    Path("folder").mkdir()
    inputs = arguments if output is None else arguments[:-1]
    assert split_output(arguments, None, compressing()) == (inputs, output)


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["a.aec"], None),
        (["a.aec", "b.aec"], None),
        (["a.aec", "*.aec"], None),
        (["a.aec", "magic"], None),
        (["a.aec", "there.png"], "there.png"),
        (["a.aec", "new.jpg"], "new.jpg"),
        (["a.aec", "-"], "-"),
        (["a.aec", "folder"], "folder"),
    ],
)
def test_the_last_argument_when_decompressing(arguments: list[str], output: str | None) -> None:
    Path("folder").mkdir()
    touch("magic", data=MAGIC)
    touch("there.png", data=b"\x89PNG")
    inputs = arguments if output is None else arguments[:-1]
    assert split_output(arguments, None, decompressing()) == (inputs, output)


def test_what_was_probably_meant_as_an_output_is_explained() -> None:
    touch("a.png")
    made = plan(["a.png", "small"], None, compressing())
    assert [path for path, _ in made.failures] == ["small"]
    assert "an output ends in .aec" in made.failures[0][1]
    assert not plan(["a.png", "gone.png"], None, compressing()).failures  # told when it is opened
    assert not plan(["small"], None, compressing()).failures
    assert not plan(["a.png", "small"], "out", compressing()).failures


def test_an_output_by_option_makes_every_argument_an_input() -> None:
    assert split_output(["a.png", "b.aec"], "o.aec", compressing()) == (["a.png", "b.aec"], "o.aec")


@pytest.mark.parametrize(
    ("source", "target"),
    [("a.png", "a.aec"), ("a.tar.JPG", "a.tar.aec"), ("v1.2", "v1.2.aec"), ("a", "a.aec"),
     ("d.png/a", "d.png/a.aec")],
)  # fmt: skip
def test_names_of_results(source: str, target: str) -> None:
    assert compressing().rename(source) == target
    assert decompressing(".jpg").rename(target) == os.path.splitext(target)[0] + ".jpg"


def test_files_beside_the_inputs_or_in_a_folder() -> None:
    touch("d/a.png", "b.png")
    made = plan(["d/a.png", "b.png"], None, compressing())
    assert pairs(made) == {"d/a.png": "d/a.aec", "b.png": "b.aec"}
    made = plan(["d/a.png", "b.png"], "out", compressing())
    assert pairs(made) == {"d/a.png": "out/a.aec", "b.png": "out/b.aec"}
    assert all(job.in_folder for job in made.jobs)
    assert plan(["b.png"], "out", compressing()).jobs == [Job("b.png", "out")]
    assert pairs(plan(["b.png"], "out/", compressing())) == {"b.png": "out/b.aec"}


def test_trees_are_mirrored() -> None:
    touch("p/a.png", "p/x/b.JPG", "p/x/y/c.webp", "p/notes.txt", "p/.hidden/d.png", "p/.e.png")
    made = plan(["p"], "out", compressing(), recursive=True)
    assert pairs(made) == {
        "p/a.png": "out/a.aec",
        "p/x/b.JPG": "out/x/b.aec",
        "p/x/y/c.webp": "out/x/y/c.aec",
    }
    assert pairs(plan(["p"], None, compressing(), recursive=True))["p/x/b.JPG"] == "p/x/b.aec"


def test_folders_need_to_be_asked_for() -> None:
    touch("p/a.png")
    assert plan(["p"], None, compressing()).failures == [
        ("p", "is a folder; use -r to compress what is in it")
    ]
    made = plan(["p"], None, decompressing(), recursive=True)
    assert made.failures == [("p", "no .aec files in this folder")]


def test_patterns() -> None:
    touch("a.png", "b.png", "d/e/c.png", "x[1].png")
    assert list(pairs(plan(["?.png"], "out", compressing()))) == ["a.png", "b.png"]
    assert "d/e/c.png" in pairs(plan(["**/*.png"], "out", compressing()))
    assert pairs(plan(["x[1].png"], None, compressing())) == {"x[1].png": "x[1].aec"}
    failures = plan(["*.tif", "a.png"], None, compressing()).failures
    assert failures == [("*.tif", "no file matches this pattern")]


def test_two_files_never_share_an_output() -> None:
    touch("a.png", "a.jpg", "d/a.png")
    made = plan(["a.png", "a.jpg"], None, compressing())
    assert pairs(made) == {"a.png": "a.aec"}
    assert made.failures == [("a.jpg", "a.aec is already the output of a.png")]
    assert len(plan(["a.png", "d/a.png"], "out", compressing()).failures) == 1


def test_a_file_named_twice_is_done_once() -> None:
    touch("a.png", "b.png")
    made = plan(["a.png", "*.png", "./a.png"], None, compressing())
    assert (len(made.jobs), made.failures) == (2, [])


def test_the_input_is_never_the_output() -> None:
    touch("a.aec")
    os.link("a.aec", "b.aec")
    for output in ("a.aec", "b.aec"):
        made = plan(["a.aec"], output, compressing())
        assert made.failures == [("a.aec", "the output would overwrite the input")]
        assert not made.jobs


def test_files_that_are_missing_are_left_to_be_reported_when_opened() -> None:
    assert pairs(plan(["gone.png"], None, compressing())) == {"gone.png": "gone.aec"}


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (["a", "b"], "-"),
        (["-", "a"], None),
        (["-"], "d/"),
        (["a", "b"], "f"),
        (["a", "b"], "c.aec"),
        (["."], "c.aec"),
    ],
)
def test_what_does_not_fit_together(inputs: list[str], output: str | None) -> None:
    touch("f")
    with pytest.raises(UsageError):
        plan(inputs, output, compressing())


def test_a_picture_is_no_folder() -> None:
    with pytest.raises(UsageError):
        plan(["a.aec", "b.aec"], "c.png", decompressing())


def test_pipes() -> None:
    assert plan(["-"], None, compressing()).jobs == [Job("-", "-")]
    assert plan(["-"], "a.aec", compressing()).jobs == [Job("-", "a.aec")]
    assert plan(["a.png"], "-", compressing()).jobs == [Job("a.png", "-")]


@pytest.mark.parametrize("workers", [1, 3])
def test_every_job_is_done_once(workers: int) -> None:
    todo = [Job(str(n), "") for n in range(200)]
    seen: list[jobs.Outcome] = []
    jobs.run(todo, lambda job: jobs.Outcome(job, "ok"), workers, seen.append)
    assert sorted(seen, key=lambda o: int(o.job.source)) == [jobs.Outcome(j, "ok") for j in todo]


def test_reports_come_in_the_calling_thread() -> None:
    threads: set[int] = set()
    workers: set[int] = set()

    def work(job: Job) -> jobs.Outcome:
        workers.add(threading.get_ident())
        return jobs.Outcome(job, "ok")

    jobs.run(
        [Job("a", ""), Job("b", "")], work, 2, lambda outcome: threads.add(threading.get_ident())
    )
    assert threads == {threading.get_ident()}
    assert threading.get_ident() not in workers


def test_a_closed_gate_waits_for_writers_and_lets_no_more_in() -> None:
    gate, events = jobs.Gate(), []
    inside, leave = threading.Event(), threading.Event()

    def writer() -> None:
        with gate.writing():
            inside.set()
            leave.wait()
            events.append("written")

    def late() -> None:
        with gate.writing():
            events.append("late")

    threading.Thread(target=writer, daemon=True).start()
    inside.wait()
    threading.Timer(0.05, leave.set).start()
    gate.close()
    events.append("closed")
    threading.Thread(target=late, daemon=True).start()
    time.sleep(0.05)
    assert events == ["written", "closed"]


def test_planning_imports_nothing_of_weight() -> None:
    code = (
        "import sys, aecodec.cli, aecodec.details\n"
        "heavy = {'numpy', 'PIL', 'onnxruntime', 'torch', 'compressai'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
