"""Do two machines decode the same symbols?

    python tools/check_architecture.py write FILE     on one of them
    python tools/check_architecture.py check FILE     on the other one

FILE holds a few coded tiles, and the checksum of what the exact networks give on inputs at the
ends of their range. `check` needs NumPy, Pillow and safetensors; it takes the range decoder in
plain Python (tests/reference_coder.py), so the coder's library may be missing, and checks the
NumPy oracle and, where it is installed, ONNX Runtime. See tools/aarch64.sh for an emulated run.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
if importlib.util.find_spec("constriction") is None:
    nothing = SimpleNamespace(stream=SimpleNamespace(model=SimpleNamespace(Uniform=int)))
    sys.modules["constriction"] = nothing  # type: ignore[assignment]

import exactness  # noqa: E402
from reference_coder import ReferenceDecoder  # noqa: E402

from aecodec import tile  # noqa: E402
from aecodec.transforms import OnnxNetworks  # noqa: E402


def digest(networks: Any) -> int:
    """CRC-32 of everything the exact networks compute on the extreme inputs."""
    value = 0
    for array in exactness.outputs(networks):
        value = zlib.crc32(array.astype("<i4").tobytes(), value)
    return value


def write(path: Path) -> None:
    """Code the tiles with the oracle and note the digest."""
    tiles = [
        {"case": case, "checksum": coded.checksum, "payload": coded.payload.hex()}
        for case, (_, coded, _) in zip(exactness.CASES, exactness.tiles(), strict=True)
    ]
    model = exactness.folder_and_vectors()[0].name
    record = {"model": model, "digest": digest(exactness.oracle()), "tiles": tiles}
    path.write_text(json.dumps(record, indent=1) + "\n")


def check(path: Path) -> None:
    """Decode the tiles and compare; a difference raises SymbolError or ends with status 1."""
    record = json.loads(path.read_text())
    folder, vectors = exactness.folder_and_vectors()
    if folder.name != record["model"]:
        sys.exit(f"{path} was written with model {record['model']}, not {folder.name}")
    runtimes: dict[str, Any] = {"NumPy oracle": exactness.oracle()}
    if importlib.util.find_spec("onnxruntime"):
        runtimes["ONNX Runtime"] = OnnxNetworks(folder, vectors, 2)
        runtimes["ONNX Runtime, not optimised"] = OnnxNetworks(folder, vectors, 1, optimise=False)
    tile.SymbolDecoder = ReferenceDecoder  # type: ignore[assignment, misc]
    for name, networks in runtimes.items():
        model = exactness.with_networks(networks)
        for item in record["tiles"]:
            height, width, quality, grey = item["case"]
            coded = tile.Tile(item["checksum"], bytes.fromhex(item["payload"]))
            tile.decode_tile(model, coded, (height, width), quality, grey)
        if digest(networks) != record["digest"]:
            sys.exit(f"{name} on {platform.machine()}: the networks differ")
        print(f"{name} on {platform.machine()}: {len(record['tiles'])} tiles and digest equal")


if __name__ == "__main__":
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))
