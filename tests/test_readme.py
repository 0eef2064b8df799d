"""Every command in README.md and docs/cli.md runs as it is written, and makes what it says.

Each block of code is run from top to bottom in a folder of its own, in which small pictures
stand in for the names that the documents use. New blocks and lines are picked up by themselves;
what cannot be run has to be listed in NOT_RUN.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import synthetic
from PIL import Image

import aecodec

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/cli.md")
PICTURES = (".png", ".jpg", ".webp")
# Installing and testing: what CI does before and around this test.
NOT_RUN = ("pip install .", "pip install '.[train]'", "bash tools/test")
EXTRAS = {  # what a command contains -> the extra it needs, a module that tells
    "aecodec.training": ("train", "compressai"),
    "compress_tree.py": ("examples", "distributed"),
    "aecodec bench": ("bench", "bjontegaard"),
}
# Programs of others that the documents pipe to and from.
TOOLS = {
    "curl": 'cat "$STAND_INS/some.aec"',
    "convert": 'cat "$STAND_INS/some.png"',
    "display": "cat > displayed.ppm",
}
TRAINING = """
data = "data"
valid = "valid"
cache = "tiles.u8"
out = "trained"
steps = 2
batch = 1
crop = 64
precision = "32-true"
[model]
C8 = 16
C16 = 16
dec_blocks8 = 1
dec_blocks16 = 1
enc_blocks8 = 1
enc_blocks16 = 1
M = 32
Z = 8
H = 8
W = 16
prior_blocks = 1
"""

needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")


@dataclass(frozen=True)
class Block:
    """A fenced block of code: where it stands, its language and its text."""

    place: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Shell commands, one by one; lines that end in a backslash are joined."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks() -> list[Block]:
    """All fenced blocks of the documents."""
    found = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text("utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(f"{name}:{line}", match[1], match[2]))
    return found


def bare(command: str) -> str:
    """A command without its comment."""
    return re.sub(r"\s+#.*", "", command).strip()


def photograph(width: int, height: int, seed: int) -> Image.Image:
    """Structure and noise, so that a file of 60,000 bytes can be asked for."""
    planes = np.dstack([synthetic.plane(width, height, seed + plane) for plane in range(3)])
    noise = np.random.default_rng(seed).integers(-20, 20, planes.shape)
    return Image.fromarray(np.clip(planes + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stand-ins for other programs, and for `aecodec` where it is not installed."""
    folder = tmp_path_factory.mktemp("bin")
    scripts = dict(TOOLS)
    if not shutil.which("aecodec", path=os.path.dirname(sys.executable)):
        scripts["aecodec"] = f'exec "{sys.executable}" -m aecodec "$@"'
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    photograph(60, 40, 5).save(folder / "some.png")
    aecodec.compress(folder / "some.png", folder / "some.aec")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that a reader may have: a checkout with some pictures of theirs."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    photograph(400, 300, 1).save(tmp_path / "photo.png")
    small = ("in.png", "a.jpg", "b.jpg", "photos/c.png", "photos/deep/d.jpg")
    for number, name in enumerate(small):
        photograph(70 + 10 * number, 50, number).save(tmp_path / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for name, number in (("data", 2), ("valid", 1)):
        (tmp_path / name).mkdir()
        for seed in range(number):
            photograph(512, 512, seed).save(tmp_path / name / f"{seed}.png", compress_level=1)
    config = tmp_path / "aecodec" / "training" / "configs" / "base.toml"
    config.parent.mkdir(parents=True)
    config.write_text(TRAINING)
    return tmp_path


def missing_extra(command: str) -> str:
    """Why a command cannot run here, or ""."""
    for part, (extra, module) in EXTRAS.items():
        if part in command and importlib.util.find_spec(module) is None:
            return f"{command!r} needs the extra {extra}"
    return ""


def state(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def execute(arguments: list[str], folder: Path, tools: Path) -> tuple[str, set[Path]]:
    """What a command prints and the files it makes; it must succeed and do something."""
    before = state(folder)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AECODEC_")}
    path = os.pathsep.join([str(tools), os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=kept | {"PATH": path, "PYTHONPATH": str(ROOT), "STAND_INS": str(tools)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    made = {path for path, when in state(folder).items() if before.get(path) != when}
    assert made or done.stdout.strip(), "nothing came of it"
    for file in made:
        if file.suffix == ".aec":
            aecodec.decode(file.read_bytes())
        elif file.suffix in PICTURES:
            with Image.open(file) as image:
                image.load()
    return done.stdout, made


def run_block(block: Block, folder: Path, tools: Path) -> None:
    """Run a block from top to bottom; skips at its end when a command needs a missing extra."""
    if block.language == "python":
        (folder / "block.py").write_text(block.text)
        execute([sys.executable, "block.py"], folder, tools)
        return
    reasons = []
    for command in block.commands:
        if bare(command) in NOT_RUN:
            continue
        if reason := missing_extra(command):
            reasons.append(reason)
            continue
        shell = ["bash", "-euo", "pipefail", "-c", command]
        said, made = execute(shell, folder, tools)
        suffixes = {path.suffix for path in made}
        if "aecodec compress" in command:
            assert ".aec" in suffixes, command
        if "aecodec decompress" in command:
            assert suffixes & {*PICTURES, ".ppm"}, command
        if "aecodec info" in command:
            assert "quality" in said, command
    if reasons:
        pytest.skip("; ".join(reasons))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_block_says_what_it_is(name: str) -> None:
    """Code stands between fences that name its language: nothing is overlooked below."""
    text = (ROOT / name).read_text("utf-8")
    assert {block.language for block in blocks()} <= {"sh", "python", "text"}
    outside = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "```" not in outside
    assert not re.search(r"^\n(    |\t)", outside, re.MULTILINE), "an indented block of code"


def test_what_is_not_run_is_there() -> None:
    commands = {bare(c) for block in blocks() if block.language == "sh" for c in block.commands}
    assert set(NOT_RUN) <= commands


@needs_bash
@pytest.mark.parametrize(
    "block", [b for b in blocks() if b.language != "text"], ids=lambda block: block.place
)
def test_commands(block: Block, folder: Path, tools: Path) -> None:
    run_block(block, folder, tools)


@needs_bash
@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("sh", "unknown-command photo.png"),
        ("sh", "aecodec info photo.png"),
        ("sh", "unknown-command | aecodec --version"),
        ("sh", "true"),
        ("sh", "aecodec --version  # fine\naecodec compress photo.png --no-such-option"),
        ("python", "import aecodec\naecodec.no_such_function()"),
    ],
)
def test_what_does_not_work_is_found(language: str, text: str, tmp_path: Path, tools: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    with pytest.raises(AssertionError):
        run_block(Block("here", language, text), tmp_path, tools)
