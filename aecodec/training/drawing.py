"""Random ink, words, boxes and fonts: what the tiles of synthetic.py are drawn with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]  # left, top, right, bottom; all inside

LETTERS = list("eeeeeettttaaaooooiinnsshhrrddlluucmwfgypbvkxjqzEATSNMRCP0123456789.,:;-()=/")
FONTS = (
    "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf", "DejaVuSansMono.ttf",
    "LiberationSans-Regular.ttf", "arial.ttf", "Arial.ttf", "times.ttf", "Courier New.ttf",
)  # fmt: skip


@lru_cache(maxsize=1)
def _font_names() -> tuple[str, ...]:
    """The fonts of FONTS that this machine has, and "" for Pillow's own."""
    found = [""]
    for name in FONTS:
        try:
            ImageFont.truetype(name, 12)
        except OSError:
            continue
        found.append(name)
    return tuple(found)


@lru_cache(maxsize=256)
def _load_font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if name:
        return ImageFont.truetype(name, size, layout_engine=ImageFont.Layout.BASIC)
    return ImageFont.load_default(size=size)


def font(rng: np.random.Generator, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    names = _font_names()
    return _load_font(names[rng.integers(len(names))], size)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def colour(rng: np.random.Generator) -> Colour:
    """A grey, a corner of the colour cube, or any colour."""
    kind = rng.random()
    if kind < 0.3:
        level = int(rng.integers(256))
        return level, level, level
    r, g, b = rng.integers(0, 2, 3) * 255 if kind < 0.6 else rng.integers(0, 256, 3)
    return int(r), int(g), int(b)


def paper_and_ink(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Dark on light, light on dark, or two colours."""
    kind = rng.random()
    if kind < 0.4:
        return (255, 255, 255), (0, 0, 0)
    if kind < 0.8:
        light, dark = rng.integers(200, 256, 3).tolist(), rng.integers(0, 80, 3).tolist()
        paper, ink = (light, dark) if rng.random() < 0.5 else (dark, light)
        return tuple(paper), tuple(ink)
    return colour(rng), colour(rng)


def letters(rng: np.random.Generator, count: int) -> str:
    """`count` random letters with spaces between words."""
    text = np.array(LETTERS)[rng.integers(len(LETTERS), size=count)]
    text[rng.random(count) < 0.17] = " "
    return "".join(text)


def blank(size: int, paper: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (size, size), paper)
    return image, ImageDraw.Draw(image)


def box(rng: np.random.Generator, size: int, least: int) -> Box:
    """A rectangle with sides of `least` or more, if there is room for them."""
    w, h = rng.integers(min(least, size - 1), size, 2)
    x, y = rng.integers(0, size - w), rng.integers(0, size - h)
    return int(x), int(y), int(x + w), int(y + h)


def crop(rng: np.random.Generator, photo: Pixels, width: int, height: int) -> Pixels:
    """Part of the photograph, at most width x height."""
    h, w = min(height, photo.shape[0]), min(width, photo.shape[1])
    r, c = rng.integers(photo.shape[0] - h + 1), rng.integers(photo.shape[1] - w + 1)
    return photo[r : r + h, c : c + w]


def write(
    rng: np.random.Generator, draw: ImageDraw.ImageDraw, place: Box, points: int, ink: Colour
) -> None:
    """Fill a box with ragged lines of text; they may run past its right edge."""
    face = font(rng, points)
    step = max(int(points * rng.uniform(1.1, 1.6)), 1)
    room = max((place[2] - place[0]) // max(points // 2, 1), 1)
    for y in range(place[1], place[3] - points + 1, step):
        if rng.random() < 0.92:
            count = int(room * rng.choice([1.0, 1.0, rng.uniform(0.1, 1.0)])) + 1
            draw.text((place[0], y), letters(rng, count), fill=ink, font=face)
