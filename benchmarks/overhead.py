"""How much larger files are than the code length that the model gives their symbols.

    python benchmarks/overhead.py FOLDER [--pictures N] [--qualities 0,25,50,75,100]

Every picture is encoded to a whole file, and the file is decoded again to add up the ideal code
length, -log2 of the frozen tables' probability of each symbol (16 bits more for an escape) and a
bit for each sign that is not hidden, those that tune the filter among them. What remains is the
container and what the range coder loses by rounding and by ending on a byte.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import click
import numpy as np
import numpy.typing as npt

from aecodec import codec, container, tile, tuning
from aecodec.bench import pictures
from aecodec.container import Colour
from aecodec.entropy import Groups, SymbolDecoder, TableSet
from aecodec.model import open_model
from aecodec.picture import from_image
from aecodec.window import padded


class Counting(SymbolDecoder):
    """A decoder that adds up the ideal code length of what it decodes."""

    bits = 0.0

    def get_grouped(self, groups: Groups, tables: TableSet) -> npt.NDArray[np.int32]:
        """As SymbolDecoder."""
        symbols = super().get_grouped(groups, tables)
        index = np.repeat(np.arange(len(groups.counts)), groups.counts)
        Counting.bits += tables.bits(symbols, index)
        return symbols

    def get_bits(self, count: int) -> npt.NDArray[np.bool_]:
        """As SymbolDecoder."""
        Counting.bits += count
        return super().get_bits(count)


def ideal_bits(data: bytes) -> float:
    """Code length of all symbols of a file under the model that it names."""
    file = container.read(data)
    header, model = file.header, open_model(file.header.model_id.hex())
    Counting.bits = 0.0
    with mock.patch.object(tile, "SymbolDecoder", Counting):
        for part, box in zip(file.tiles, header.boxes, strict=True):
            size = (padded(box[3]) - box[1], padded(box[2]) - box[0])
            assert part is not None  # only reading a damaged file leaves tiles out
            tile.decode_tile(model, part, size, header.quality, header.colour is Colour.GREY)
    with mock.patch.object(tuning, "SymbolDecoder", Counting):
        tuning.tuned_model(model, header.quality, file.filter)
    return Counting.bits


def measure(path: Path, quality: float) -> tuple[int, int, float]:
    """(bytes of the file, bytes of coded symbols, ideal bits) of a picture at a quality."""
    data = codec.encode_picture(from_image(pictures.load(path)), quality)
    return len(data), coded_bytes(data), ideal_bits(data)


def coded_bytes(data: bytes) -> int:
    """Bytes of the payloads of a file, and of how its filter is tuned."""
    file = container.read(data)
    change = 0 if file.filter is None else len(file.filter) - 1 - tuning.CLASSES
    return change + sum(len(part.payload) for part in file.tiles if part)


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--pictures", "count", type=int, default=0, help="Only the first few (0: all).")
@click.option("--qualities", default="0,25,50,75,100", show_default=True)
def main(folder: Path, count: int, qualities: str) -> None:
    """Compare file sizes with the ideal code length of their symbols."""
    sources, problems = pictures.find([folder])
    if problems or not sources:
        raise click.ClickException("; ".join(problems) or f"{folder}: no pictures")
    sources = sources[: count or None]
    click.echo(f"{len(sources)} pictures, model {open_model().weights.id.hex()}")
    click.echo("quality  mean bytes  container   coder  file: mean    worst  smallest file")
    for quality in map(float, qualities.split(",")):
        rows = [measure(source.path, quality) for source in sources]
        size, payload, bits = np.array(rows).T
        excess = (size * 8 / bits - 1) * 100
        click.echo(
            f"{quality:7g} {size.mean():11.0f} {(size - payload).mean():10.1f} "
            f"{(payload - bits / 8).mean():7.1f}   {excess.mean():+7.2f} % {excess.max():+6.2f} %"
            f" {size.min():8.0f} bytes"
        )


if __name__ == "__main__":
    main()
