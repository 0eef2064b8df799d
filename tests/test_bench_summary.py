"""Benchmark: curves, Bjontegaard deltas, tables, published points and the README block."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from aecodec.bench import curves, summary
from aecodec.bench.curves import Curve
from aecodec.bench.records import Record

pytest.importorskip("bjontegaard")
from aecodec.bench.bd import delta, monotone

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "benchmarks" / "published"  # the package itself may be installed elsewhere
in_checkout = pytest.mark.skipif(
    not (ROOT / "benchmarks").is_dir(), reason="benchmarks/ is part of a checkout only"
)


def line(name: str, factor: float, low: int = 28, high: int = 40) -> Curve:
    """6 dB per bit of a logarithmic rate, `factor` times the rate of factor 1."""
    psnr = tuple(float(value) for value in range(low, high + 1, 2))
    return Curve(name, name, tuple(factor * 2 ** ((value - 34) / 6) for value in psnr), psnr)


def record(picture: str, codec: str, quality: float, size: int, psnr: float) -> Record:
    return Record(picture, picture, 100, 80, codec, "1", quality, size, psnr)


def records(pictures: str = "ab") -> list[Record]:
    """JPEG and WebP at four qualities; WebP takes 20 % fewer bytes."""
    return [
        record(picture, codec, float(q), int(share * 1000 * 2 ** (q / 20) * (1 + i)), 25 + q / 6)
        for i, picture in enumerate(pictures)
        for codec, share in (("jpeg", 1.0), ("webp", 0.8))
        for q in (20, 40, 60, 80)
    ]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_delta_of_a_known_ratio() -> None:
    found = delta(line("anchor", 1.0), line("test", 0.8))
    assert found
    assert found.rate == pytest.approx(-20.0, abs=0.01)
    # 20 % fewer bits at 6 dB per doubling of the rate.
    assert found.quality == pytest.approx(6 * math.log2(1 / 0.8), abs=0.01)
    assert found.span == (28.0, 40.0)
    assert found.overlap == 1.0
    assert not found.doubtful


def test_delta_within_a_span_and_with_akima() -> None:
    anchor, test = line("anchor", 1.0), line("test", 1.5, 30, 42)
    for method in ("pchip", "akima"):
        found = delta(anchor, test, method, span=(28.0, 36.0))
        assert found
        assert found.rate == pytest.approx(50.0, abs=0.1)
        assert found.span == (30.0, 36.0)
        assert found.overlap == pytest.approx(6 / 8)


def test_small_overlap_is_doubtful_and_none_is_no_number() -> None:
    found = delta(line("anchor", 1.0, 20, 30), line("test", 1.0, 26, 36))
    assert found
    assert found.doubtful
    assert found.overlap == pytest.approx(4 / 16)
    assert delta(line("anchor", 1.0, 20, 28), line("test", 1.0, 30, 40)) is None
    assert delta(line("anchor", 1.0), Curve("x", "x", (1.0, 2.0), (30.0, 35.0))) is None


def test_points_beaten_by_their_neighbour_are_left_out() -> None:
    curve = Curve("x", "x", (0.4, 0.1, 0.2, 0.3), (33.0, 28.0, 31.0, 30.0))
    assert monotone(curve) == ([0.1, 0.2, 0.4], [28.0, 31.0, 33.0])


def test_means_are_over_pictures_with_every_result() -> None:
    rows = records()[:-1]  # WebP at 80 failed on picture b
    found = summary.build(rows)
    assert found.pictures == ["a"]
    assert found.left_out == ["b"]
    assert "incomplete: b" in summary.to_markdown(found)
    jpeg = found.measured[0]
    assert jpeg.bpp[0] == pytest.approx(8 * 2000 / 8000)


def test_mean_curve_averages_decibels() -> None:
    rows = [record("a", "jpeg", 50.0, 1000, 30.0), record("b", "jpeg", 50.0, 3000, 40.0)]
    curve = curves.measured(rows, ["a", "b"])[0]
    assert curve.bpp == (2.0,)
    assert curve.psnr == (35.0,)
    assert curves.to_compressai(curve)["results"]["psnr-rgb"] == [35.0]


def test_tables_name_method_span_and_anchor() -> None:
    found = summary.build(records())
    block = summary.readme_block(found)
    assert "| JPEG | anchor |" in block
    assert re.search(r"\| WebP \| \u221220\.0\u202f% \(28\.3\u201338\.3\) \|", block)
    assert "pchip" in block
    assert "bjontegaard" in block
    document = summary.to_markdown(found)
    for part in ("BD-PSNR", "Picture by picture", "**median**", "Means per setting"):
        assert part in document


def seen(rows: list[Record]) -> list[Record]:
    """The same with SSIMULACRA 2, in which WebP needs as many bytes as JPEG."""
    sizes = {(row.picture, row.quality): row.bytes for row in rows if row.codec == "jpeg"}
    return [
        dataclasses.replace(
            row, ssimulacra2=20 * math.log2(row.bytes / sizes[row.picture, 20.0]) + 25.0
        )
        for row in rows
    ]


def test_tables_show_what_people_see_where_it_was_measured() -> None:
    plain, both = (summary.build(rows) for rows in (records(), seen(records())))
    assert "SSIMULACRA" not in summary.readme_block(plain)
    block = summary.readme_block(both)
    row = next(line for line in block.splitlines() if line.startswith("| WebP |"))
    assert "\u221220.0" in row.split("|")[2]
    rate, span = re.search(r"([+\u2212]\d+\.\d)\u202f% \((\d+\.\d)", row.split("|")[-2]).groups()
    assert float(rate.replace("\u2212", "-")) == pytest.approx(0.0, abs=0.3)
    assert float(span) == summary.VISIBLE_SPAN[0]
    assert "| JPEG | anchor | anchor |" in block
    anchor = both.anchors[0]
    assert summary.bd_table(both, anchor)[0][-1] == "BD-rate in SSIMULACRA 2"
    assert summary.bd_table(plain, plain.anchors[0])[1][0][-1] == "n/a"


def test_unknown_anchor_is_named() -> None:
    with pytest.raises(ValueError, match="no curve named 'vtm'"):
        summary.build(records(), anchors=["vtm"])


def test_one_codec_beside_another_in_words() -> None:
    found = summary.build(records())
    line = summary.rival_line(found, "webp", "jpeg")
    assert line.startswith("WebP beside JPEG (")
    assert "\u221220.0\u202f% at equal PSNR" in line
    assert "SSIM" not in line  # not measured
    assert summary.rival_line(found) == ""  # neither was measured
    assert summary.readme_block(found).endswith(summary.method_note(found))


@in_checkout
def test_published_curves_only_for_exactly_their_pictures(tmp_path: Path) -> None:
    content = json.loads((PUBLISHED / "kodak.json").read_text("utf-8"))
    pixels = list(content["pictures"].values())
    assert len(set(pixels)) == 24
    rows = [
        Record(name, pixel, 768, 512, "jpeg", "1", float(q), 10000 * q, 25.0 + q)
        for name, pixel in content["pictures"].items()
        for q in (1, 4, 8, 12)
    ]
    found = summary.build(rows, published_folder=PUBLISHED)
    assert found.set_name == "Kodak"
    assert [anchor.name for anchor in found.anchors] == ["jpeg", "vtm-18.0"]
    assert "VTM 18.0 (published)" in summary.readme_block(found)
    assert [row[:2] for row in summary.agreement_table(found)[1]] == [["JPEG", "JPEG (published)"]]
    assert summary.build(rows[4:], published_folder=PUBLISHED).published == []


@in_checkout
def test_published_points_give_published_figures() -> None:
    """HPCM-Large is published as -19.19 % against VTM 22 and MLIC++ as -13.39 against VTM 17."""
    content = json.loads((PUBLISHED / "kodak.json").read_text("utf-8"))
    found = {c["name"]: curves._published_curve(c) for c in content["curves"]}
    for entry in content["curves"]:
        assert entry["source"]
        assert entry["date"]
        assert len(entry["bpp"]) == len(entry["psnr"]) >= 4
        assert entry["bpp"] == sorted(entry["bpp"])
    for name, expected in (("hpcm-large", -19.19), ("mlic++", -13.39), ("elic", -5.95)):
        against = delta(found["vtm-18.0"], found[name])
        assert against
        assert against.rate == pytest.approx(expected, abs=1.2)


def test_plots_are_equal_for_equal_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from aecodec.bench import plots

    monkeypatch.setattr(plots, "THEMES", {"-dark": plots.THEMES["-dark"]})
    found = summary.build(records())
    first = plots.draw_all(found, tmp_path)
    assert plots.draw_all(found, tmp_path) == first
    assert {path.name for path in tmp_path.iterdir()} == {
        "rate-distortion.svg", "rate-distortion-dark.png"
    }  # fmt: skip
    svg = first["rate-distortion"]
    assert "currentColor" in svg
    assert plots.INK not in svg
    assert "WebP" in svg


@in_checkout
def test_readme_block_is_replaced_between_its_marks(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    module = script("update_readme")
    (tmp_path / "results").mkdir()
    new = module.block(summary.build(records()), tmp_path / "results", tmp_path)
    readme = f"before\n{module.BEGIN}\nold\n{module.END}\nafter\n"
    after = module.replaced(readme, new)
    assert after.startswith("before\n")
    assert after.endswith("after\n")
    assert "old" not in after
    assert "WebP" in after
    assert module.replaced(after, new) == after
    with pytest.raises(ValueError, match="exactly one block"):
        module.replaced("no marks", new)


@in_checkout
def test_readme_matches_committed_results() -> None:
    pytest.importorskip("matplotlib")
    module = script("update_readme")
    results, readme = module.newest_results(), ROOT / "README.md"
    if results is None or not readme.exists() or module.BEGIN not in readme.read_text("utf-8"):
        pytest.skip("README.md has no benchmark block yet")
    if '"codec": "aec"' not in (results / "records.jsonl").read_text("utf-8"):
        pytest.skip("aecodec itself has no results yet")
    text = readme.read_text("utf-8")
    assert module.replaced(text, module.block(module.load(results), results)) == text


@in_checkout
def test_regression_check_sees_a_rise() -> None:
    module = script("regression")
    assert module.rise(line("baseline", 1.0), line("now", 1.02)) == pytest.approx(2.0, abs=0.01)
    assert sorted(path.suffix for path in module.FOLDER.glob("*.png")) == [".png", ".png"]
    curve = module.measure("jpeg")
    assert len(curve.bpp) == len(module.QUALITIES)


@in_checkout
def test_aecodec_needs_no_more_bits_than_committed() -> None:
    module = script("regression")
    if not module.BASELINE.exists():
        pytest.skip("no curve of aecodec is committed yet")
    assert module.rise(module.baseline(), module.measure()) <= module.LIMIT


@in_checkout
def test_speed_table_shows_ratios_and_reasons() -> None:
    module = script("speed")
    row = {"megapixels": "2", "threads": 1, "encode_s": 1.0, "decode_s": 0.5,
           "cold_encode_s": 2.0, "cold_decode_s": 1.0, "peak_mib": 100.0}  # fmt: skip
    slow = {**row, "codec": "slow", "encode_s": 3.0}
    text = module.table([
        {**row, "codec": "fast"}, slow, {"codec": "never", "megapixels": "2", "threads": 1,
                                         "error": "took longer than 5 s"},
    ])  # fmt: skip
    assert "### 2 megapixels, 1 threads" in text
    assert "| slow | 3.000 (3.00) | 0.500 (1.00) |" in text
    assert "| never | took longer than 5 s |" in text


@in_checkout
def test_speed_measures_in_a_process_of_its_own(tmp_path: Path) -> None:
    from PIL import Image

    module = script("speed")
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "0.4.ppm")
    row = module.run_job(module.Job("jpeg", "0.4", 1, 1), tmp_path, 60.0)
    assert "error" not in row, row
    assert row["bytes"] > 0
    assert row["cold_decode_s"] > 0
    assert row["peak_mib"] > 1
    assert "error" in module.run_job(module.Job("nonsense", "0.4", 1, 1), tmp_path, 60.0)


@in_checkout
def test_speed_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    from click.testing import CliRunner
    from PIL import Image

    module = script("speed")
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "a.png")
    file = tmp_path / "out" / "speed.jsonl"

    def run(*options: str) -> list[str]:
        given = [
            str(tmp_path / "a.png"),
            "-o",
            str(file.parent),
            "--sizes",
            "0.4",
            "--repeats",
            "1",
        ]
        done = CliRunner().invoke(module.main, [*given, "--codecs", "jpeg", *options])
        assert done.exit_code == 0, done.output
        return file.read_text().splitlines()

    first = run("--threads", "1")
    assert len(first) == 1
    assert run("--threads", "1,2")[0] == first[0]
    both = run("--threads", "2")
    assert len(both) == 2  # what another run measured stays
    row = json.loads(first[0])
    spoilt = [row | {"version": "older"}, row | {"error": "took longer than 5 s"}]
    file.write_text("".join(json.dumps(each) + "\n" for each in spoilt))
    assert len(run("--threads", "1")) == 3  # neither is taken for a measurement of today
