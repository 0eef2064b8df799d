"""What a run was made with: command, library versions and machine, written as run.json."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = (
    "aecodec", "numpy", "pillow", "pillow-heif", "pillow-jxl-plugin", "bjontegaard", "scipy",
    "matplotlib", "pytorch-msssim", "torch", "ssimulacra2", "onnxruntime", "constriction",
)  # fmt: skip


def processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def packages() -> dict[str, str]:
    """Installed versions of what decides a result."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def typed() -> str:
    """The command of this process, paths shortened to their names."""
    arguments = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]
    program = Path(sys.argv[0])
    known = {"aecodec/__main__.py": "aecodec", "bench/__main__.py": "python -m aecodec.bench"}
    name = known.get(f"{program.parent.name}/{program.name}", program.name)
    return " ".join([f"python {name}" if name.endswith(".py") else name, *arguments])


def describe(versions: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything a stranger needs to run it again."""
    return {
        "command": typed(),
        "settings": {name: _plain(value) for name, value in settings.items()},
        "codecs": dict(versions),
        "packages": packages(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "processors": os.cpu_count(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def write(path: Path, description: Mapping[str, Any]) -> None:
    """Write run.json."""
    path.write_text(json.dumps(description, indent=1) + "\n", "utf-8")
