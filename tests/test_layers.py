"""The layer rule: stages do not import one another, and nothing heavy loads at start-up."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "aecodec"
STAGES = ("alpha", "container", "entropy", "picture", "prior", "quantise", "transforms", "weights")
HELPERS = {"errors", "files", "metadata"}


def imports(module: Path) -> set[str]:
    """Absolute names that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("stage", STAGES)
def test_stages_do_not_import_one_another(stage: str) -> None:
    others = {f"aecodec.{name}" for name in STAGES if name != stage}
    # picture.py takes its default size limit from the container: a constant, not a stage's work.
    allowed = {"aecodec.container"} if stage == "picture" else set()
    assert imports(PACKAGE / f"{stage}.py") & others <= allowed


@pytest.mark.parametrize("module", ["head", "container"])
def test_container_needs_only_the_standard_library(module: str) -> None:
    names = {name.split(".")[0] for name in imports(PACKAGE / f"{module}.py")}
    assert names <= set(sys.stdlib_module_names) | {"aecodec"}


def test_only_entropy_knows_the_range_coder() -> None:
    users = {m.stem for m in PACKAGE.glob("*.py") if "constriction" in imports(m)}
    assert users == {"entropy"}


@pytest.mark.parametrize("module", sorted(PACKAGE.glob("*.py")), ids=lambda m: m.stem)
def test_no_module_of_the_core_imports_torch_at_module_level(module: Path) -> None:
    top = ast.parse(module.read_text()).body
    for node in top:
        if isinstance(node, ast.Import):
            assert not any(a.name.split(".")[0] in ("torch", "compressai") for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in ("torch", "compressai")


@pytest.mark.parametrize(
    ("work", "forbidden"),
    [
        ("import aecodec", {"numpy", "PIL", "onnxruntime", "torch", "compressai"}),
        (
            "import aecodec; aecodec.info(open(sys.argv[1], 'rb').read())",
            {"numpy", "PIL", "onnxruntime", "safetensors", "torch", "compressai"},
        ),
        ("import aecodec; aecodec.decode(open(sys.argv[1], 'rb').read())", {"torch", "compressai"}),
        ("import aecodec.pillow_plugin", {"onnxruntime", "torch", "compressai"}),
    ],
)
def test_start_up_loads_only_what_it_needs(work: str, forbidden: set[str], tmp_path: Path) -> None:
    import aecodec

    file = tmp_path / "a.aec"
    aecodec.compress(Path(__file__).parent / "data" / "crop.png", file, 30)
    code = f"import sys; {work}; print(' '.join(sys.modules))"
    out = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    assert not forbidden & set(out.stdout.split())
