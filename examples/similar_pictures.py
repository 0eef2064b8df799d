"""Find the pictures of a folder that look most like another one, by their latents.

    python examples/similar_pictures.py holiday.jpg photos -n 5

.aec files are compared without making pixels. What is compared: how strong each latent channel
is (texture and contrast at every scale), and its mean in each field of a 4x4 grid (where light
and colour lie). Nothing was trained for this: it finds near duplicates, crops and pictures of
one motif in one light, and does not know what they show. Sizes count: textures of a picture and
of its thumbnail are different ones.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from PIL import Image

import aecodec
from aecodec.batch import PICTURES

Float = npt.NDArray[np.float32]
GRID = 4  # latents have sides that are multiples of 4
LAYOUT = 0.5  # weight of the layout beside the texture


def unit(vector: Float) -> Float:
    """The vector with length 1."""
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def features(y_hat: Float) -> Float:
    """(F,) of length 1 from latents (M,h,w): texture, and layout on the grid."""
    m, h, w = y_hat.shape
    texture = np.log1p(np.abs(y_hat).mean((1, 2)))
    layout = y_hat.reshape(m, GRID, h // GRID, GRID, w // GRID).mean((2, 4)).ravel()
    return unit(np.concatenate([unit(texture), LAYOUT * unit(layout)]))


def read(path: Path) -> Float:
    """The features of a picture or an .aec file. Raises AecError or OSError."""
    if path.suffix.lower() == ".aec":
        return features(aecodec.read_latents(path.read_bytes()))
    with Image.open(path) as image:
        return features(aecodec.latents(image, quality=50))


def index(folder: Path) -> dict[Path, Float]:
    """The features of every picture below a folder; others are named and left out."""
    found: dict[Path, Float] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".aec", *PICTURES) or not path.is_file():
            continue
        try:
            found[path] = read(path)
        except (aecodec.AecError, OSError) as error:
            click.echo(f"{path}: {error}", err=True)
    return found


@click.command()
@click.argument("query", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-n", "count", default=5, show_default=True, type=click.IntRange(1))
def main(query: Path, folder: Path, count: int) -> None:
    """Print the pictures of FOLDER that are most like QUERY, best first: similarity and name."""
    try:
        wanted = read(query)
    except (aecodec.AecError, OSError) as error:
        raise click.ClickException(f"{query}: {error}") from error
    others = {path: seen for path, seen in index(folder).items() if not path.samefile(query)}
    ranked = sorted(((float(wanted @ seen), path) for path, seen in others.items()), reverse=True)
    for similarity, path in ranked[:count]:
        click.echo(f"{similarity:.3f}  {path}")


if __name__ == "__main__":
    main()
