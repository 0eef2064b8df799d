"""Write the graphs of an exported model anew: `python -m aecodec.training.regraph weights/ID`.

Weights, tables and the model's id stay as they are; the graphs beside them become those that this
version of the package asks for.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from safetensors.numpy import load

from aecodec.training.config import Config
from aecodec.training.export import tensor_offsets, write_graphs
from aecodec.training.graph import STORE


def regraph(folder: Path) -> None:
    """Write all graphs of the model in `folder`, and their hashes into its manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / STORE).read_bytes()
    hashes = write_graphs(folder, Config(**manifest["config"]), load(data), tensor_offsets(data))
    manifest["sha256"] = {STORE: manifest["sha256"][STORE]} | hashes
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


@click.command()
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
def main(folders: tuple[Path, ...]) -> None:
    """Write the graphs of the models in FOLDERS anew."""
    for folder in folders:
        regraph(folder)


if __name__ == "__main__":
    main()
