"""Benchmark: files of equal bytes, the report page in a browser, and the command."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from aecodec.bench import codecs, pictures, report, runner, summary
from aecodec.bench.cli import bench
from aecodec.bench.codecs import REGISTRY
from aecodec.bench.equal_bytes import match_bytes

for module in ("bjontegaard", "matplotlib"):
    pytest.importorskip(module)

SWEEP = "--qualities=20,40,60,80"


def photograph(seed: int, width: int = 120, height: int = 80) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 13, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
    noise = rng.normal(0, 12, smooth.shape)
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("pictures")
    for seed, name in enumerate(("first.png", "</script>second.png".replace("/", "_"))):
        photograph(seed).save(where / name)
    return where


@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three codecs; `jpeg2000` stands for those that browsers do not show."""
    output = tmp_path_factory.mktemp("report")
    sources, _ = pictures.find([folder])
    names = ["jpeg", "jpeg2000", "webp"]
    sweep = {name: (20.0, 40.0, 60.0, 80.0) for name in names}
    tasks = runner.plan(sources, {n: codecs.probe(n)[0] for n in names}, sweep, ["psnr"])
    rows, _ = runner.run(tasks, output / "records.jsonl")
    found = summary.build(rows)
    svg = '<svg class="chart" viewBox="0 0 10 10"><path d="M0 0L10 10"/></svg>'
    with pytest.MonkeyPatch.context() as patch:
        # Small noisy pictures take more bits per pixel than photographs.
        patch.setattr(report, "LEVELS", (("Small", 1.0), ("Medium", 4.0), ("Same", 4.1)))
        assert not report.write(output / "report.html", found, rows, sources, {"time": svg})
    return output / "report.html"


@pytest.mark.parametrize("name", ["jpeg", "webp", "jpeg2000"])
def test_bytes_are_matched_within_a_few_per_cent(name: str) -> None:
    image = photograph(3, 240, 160)
    codec = REGISTRY[name]
    known = [(q, len(codec.encode(image, q, 1))) for q in (10.0, 90.0)]
    target = int((known[0][1] * known[1][1]) ** 0.5)
    for start in ([], known):
        match = match_bytes(codec, image, target, start)
        assert abs(match.off(target)) < 0.04, (name, match.quality, match.off(target))
        assert codec.encode(image, match.quality, 1) == match.data


def test_impossible_sizes_end_at_the_nearest_setting() -> None:
    image = photograph(3)
    smallest = match_bytes(REGISTRY["jpeg"], image, 10, [(20.0, 4000)])
    assert smallest.quality == 1.0
    assert smallest.off(10) > 1
    largest = match_bytes(REGISTRY["jpeg"], image, 10**7)
    assert largest.quality == 100.0


def test_a_known_setting_of_the_wanted_size_is_taken() -> None:
    image = photograph(3)
    sizes = [(q, len(REGISTRY["jpeg"].encode(image, q, 1))) for q in (20.0, 47.0, 80.0)]
    assert match_bytes(REGISTRY["jpeg"], image, sizes[1][1], sizes).quality == 47.0


def test_page_is_self_contained(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r"""(src|href|srcset)\s*=\s*["'](?!data:)""", text)
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r"data:[^\"]*", "", text).replace(
        "http://www.w3.org", ""))  # fmt: skip
    assert "{{" not in text
    assert text.count("</script>") == 2
    data = viewer_data(text)
    assert [entry["name"] for entry in data["pictures"]] == ["<_script>second.png", "first.png"]
    for entry in data["pictures"]:
        assert [level["label"] for level in entry["levels"]] == ["Small", "Medium"]
        for level in entry["levels"]:
            assert [file["codec"] for file in level["files"]] == ["jpeg", "jpeg2000", "webp"]
            kinds = [file["src"].partition(";")[0] for file in level["files"]]
            assert kinds == ["data:image/jpeg", "data:image/webp", "data:image/webp"]
            assert level["files"][0]["bytes"] == level["target"]  # the leader's own size


def viewer_data(text: str) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_tables_are_escaped() -> None:
    text = report.html_table((["a", "b"], [["**x<y**", "+1 % (28.0\u201336.0) \u2020"]]))
    assert "<strong>x&lt;y</strong>" in text
    assert '<span class="span">(28.0\u201336.0) \u2020</span>' in text


def test_large_pictures_are_shown_as_a_crop() -> None:
    assert report._crop(Image.new("RGB", (4000, 3000))).size == report.SHOWN_SIDE
    assert report._crop(Image.new("RGB", (1024, 768))).size == (1024, 768)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    selenium = pytest.importorskip("selenium.webdriver")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if not all(programs):
        pytest.skip("needs chromium and chromedriver")
    options = selenium.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                     "--window-size=1200,900"):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = selenium.ChromeService(executable_path=programs[1])
    driver = selenium.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def run_js(browser: Any, script: str) -> Any:
    return browser.execute_script(script)


def split(browser: Any) -> float:
    return float(run_js(browser, "return state.split"))


def shown(browser: Any, side: str) -> str:
    """Codec drawn on a side, once its picture is really there."""
    image = f"document.querySelector('#layer-{side} img')"
    browser.execute_async_script(f"{image}.decode().then(arguments[0])")
    assert run_js(browser, f"return {image}.naturalWidth") == 120
    assert run_js(browser, f"return {image}.src === fileOf(state.{side}).src")
    return str(run_js(browser, f"return state.{side}"))


def test_slider_pictures_and_codecs_in_a_browser(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    browser.get(page.as_uri())
    handle = browser.find_element(By.ID, "handle")
    stage = browser.find_element(By.ID, "stage")
    assert split(browser) == 50
    assert (shown(browser, "left"), shown(browser, "right")) == ("original", "jpeg")

    ActionChains(browser).drag_and_drop_by_offset(handle, 100, 0).perform()
    width = stage.size["width"]
    assert split(browser) == pytest.approx(50 + 100 * 100 / width, abs=1.5)
    clip = run_js(browser, "return $('layer-left').style.clipPath")
    assert clip.startswith("inset(0")
    before = split(browser)
    handle.send_keys(Keys.ARROW_LEFT)
    assert split(browser) == pytest.approx(before - 2)
    handle.send_keys(Keys.HOME)
    assert split(browser) == 0
    assert handle.get_attribute("aria-valuenow") == "0"

    Select(browser.find_element(By.ID, "right")).select_by_visible_text("JPEG 2000")
    assert shown(browser, "right") == "jpeg2000"
    text = browser.find_element(By.CSS_SELECTOR, ".side.right dl").text
    assert "bpp" in text
    assert "PSNR" in text
    browser.find_element(By.ID, "next").click()
    assert run_js(browser, "return picture().name") == "first.png"
    assert (shown(browser, "left"), shown(browser, "right")) == ("original", "jpeg2000")
    browser.find_elements(By.CSS_SELECTOR, "#levels button")[1].click()
    assert run_js(browser, "return state.level") == 1

    browser.find_element(By.ID, "zoom-in").click()
    assert run_js(browser, "return state.zoom") == pytest.approx(1.5)
    ActionChains(browser).move_to_element_with_offset(
        stage, -150, 60).click_and_hold().move_by_offset(-30, -20).release().perform()  # fmt: skip
    assert run_js(browser, "return state.x") < 0
    ActionChains(browser).double_click(stage).perform()
    assert run_js(browser, "return state.zoom") == 1
    assert browser.get_log("browser") == []


def test_touch_drags_and_pinches_in_a_browser(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    box = run_js(browser, "const b = stage.getBoundingClientRect(); return [b.x, b.y, b.width]")
    left, top, width = box

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": left + x, "y": top + y, "id": i} for i, (x, y) in enumerate(points)]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (width * 0.3, 50))
    for share in (0.4, 0.6, 0.8):
        touch("touchMove", (width * share, 50))
    touch("touchEnd")
    assert split(browser) == pytest.approx(80, abs=2)
    run_js(browser, "zoomTo(2)")  # fingers on a zoomed picture never scroll the page
    touch("touchStart", (100, 50), (200, 50))
    touch("touchMove", (80, 50), (240, 50))
    touch("touchEnd")
    assert run_js(browser, "return state.zoom") > 2.5
    assert browser.get_log("browser") == []


def test_page_fits_a_phone(browser: Any, page: Path) -> None:
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    assert run_js(browser, "return document.documentElement.scrollWidth") == 360
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_command_measures_and_writes_everything(folder: Path, tmp_path: Path) -> None:
    call = [str(folder), "--codecs=jpeg,webp", SWEEP, "--qualities=jpeg=15,30,50,70,90",
            "--jobs=1", "--metrics=psnr", "--report-pictures=1", "-o", str(tmp_path)]  # fmt: skip
    result = CliRunner().invoke(bench, call)
    assert result.exit_code == 0, result.output
    assert "BD-rate against JPEG" in result.output
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == 2 * (5 + 4)
    for name in ("records.csv", "run.json", "summary.md", "rate-distortion.svg", "report.html"):
        assert (tmp_path / name).stat().st_size > 100, name
    described = json.loads((tmp_path / "run.json").read_text())
    assert described["codecs"].keys() == {"jpeg", "webp"}
    assert str(folder.parent) not in json.dumps(described)


def test_command_names_problems_finishes_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for seed, where in enumerate((one, two)):
        where.mkdir()
        photograph(seed).save(where / "same.png")
    photograph(5).save(one / "other.png")
    (one / "broken.png").write_bytes(b"no picture")
    encode = REGISTRY["webp"].encode

    def fails_on_other(image: Image.Image, quality: float, threads: int) -> bytes:
        if image.tobytes() == photograph(5).tobytes():
            raise RuntimeError("a codec's own failure")
        return encode(image, quality, threads)

    import dataclasses

    broken = dataclasses.replace(REGISTRY["webp"], encode=fails_on_other)
    monkeypatch.setitem(REGISTRY, "webp", broken)
    call = [str(one), str(two), "--codecs=jpeg,webp,heic", SWEEP, "--jobs=1", "--metrics=psnr",
            "--no-report", "-o", str(tmp_path / "out")]  # fmt: skip
    monkeypatch.setattr(codecs, "probe", lambda name: ("", "no plugin") if name == "heic" else
                        ("1", ""))  # fmt: skip
    result = CliRunner().invoke(bench, call)
    assert result.exit_code == 1
    for part in ("broken.png: cannot be read", "named same.png", "a codec's own failure",
                 "skipping codec heic: no plugin", "other.png: webp at quality 20"):  # fmt: skip
        assert part in result.output, part
    assert len((tmp_path / "out" / "records.jsonl").read_text().splitlines()) == 4 * 3
    assert "In no mean, results incomplete: other.png" in result.output


def test_command_draws_no_chart_of_what_loses_nothing(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).convert("RGB").save(tmp_path / "board.png")
    call = [str(tmp_path), "--codecs=aec", "--qualities=50,95", "--jobs=1", "--metrics=psnr",
            "--no-report", "-o", str(tmp_path / "out")]  # fmt: skip
    result = CliRunner().invoke(bench, call)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "summary.md").exists()
    assert not (tmp_path / "out" / "rate-distortion.svg").exists()


def test_command_refuses_an_empty_folder(tmp_path: Path) -> None:
    result = CliRunner().invoke(bench, [str(tmp_path)])
    assert result.exit_code == 1
    assert "no pictures in this folder" in result.output


@pytest.mark.parametrize("option", ["--codecs=gif", "--qualities=jpeg=x", "--qualities=gif=5"])
def test_command_explains_wrong_options(folder: Path, option: str) -> None:
    result = CliRunner().invoke(bench, [str(folder), option])
    assert result.exit_code == 2
    assert "Invalid value" in result.output
