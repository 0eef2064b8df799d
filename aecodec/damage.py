"""What is known of a damaged file, and how its missing parts are shown."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from aecodec import container
from aecodec.errors import AecError
from aecodec.picture import Picture

Box = tuple[int, int, int, int]  # left, top, right, bottom

GREY = 128  # level of every plane of a damaged tile: no picture content looks like it at length


LEFT_OUT = ("ICC", "EXIF", "XMP", "FILTER")


@dataclass(frozen=True)
class Damage:
    """What best effort could not restore; false when the file is whole.

    tiles: boxes (left, top, right, bottom) in pixels, shown grey and opaque. others: names of
    the damaged chunks that are no tiles: without ALPHA the picture is shown opaque, without FILTER
    it is a little less exact, ICC, EXIF and XMP are left out. stray: bytes that belong to no chunk.
    """

    tiles: tuple[Box, ...] = ()
    others: tuple[str, ...] = ()
    stray: bool = False

    def __bool__(self) -> bool:
        return bool(self.tiles or self.others or self.stray)

    def lines(self) -> list[str]:
        """One sentence per damaged part, fit to be shown as they are."""
        said = [f"the {name} chunk is damaged and left out" for name in self.others]
        for left, top, right, bottom in self.tiles:
            said.append(
                f"the tile at {left},{top} of {right - left}x{bottom - top} pixels is damaged "
                "and shown grey"
            )
        return said + (["bytes that belong to no chunk are left out"] if self.stray else [])


def survey(data: bytes, header: container.Header, tiles: Iterable[Box], alpha_lost: bool) -> Damage:
    """All that is wrong with a file, its damaged tiles and alpha plane being known."""
    others = ["ALPHA"] if alpha_lost else []
    pixels = header.width * header.height
    with contextlib.suppress(AecError):  # what follows a broken frame shows as missing tiles
        chunks = container.walk(data, pixels)
        others += [c.name for c in chunks if not c.intact and c.name in LEFT_OUT]
    damage = Damage(tuple(tiles), tuple(others))
    if not damage:
        try:
            container.read(data, pixels)
        except AecError:
            return Damage(stray=True)
    return damage


def show_damage(picture: Picture, tiles: Iterable[Box]) -> None:
    """Paint the damaged tiles of a picture, in place, in opaque neutral grey."""
    for left, top, right, bottom in tiles:
        picture.pixels[top:bottom, left:right] = np.uint8(GREY)
        if picture.alpha is not None:
            picture.alpha[top:bottom, left:right] = np.uint8(255)
