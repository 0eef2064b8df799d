"""The documents about the command say what the command says."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from aecodec.cli import cli

ROOT = Path(__file__).parents[1]


def test_the_man_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("man_page", ROOT / "tools" / "man_page.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "aecodec.1").read_text() == module.page(), "run tools/man_page.py"


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_the_man_page_renders_without_warnings() -> None:
    page = ROOT / "docs" / "aecodec.1"
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", page], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "130  interrupted" in done.stdout


def test_docs_name_every_option() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for command in cli.commands.values():
        for option in command.params:
            if isinstance(option, click.Option):
                names = [*option.opts, *option.secondary_opts]
                assert any(f"{name}" in text for name in names if name.startswith("--")), names
