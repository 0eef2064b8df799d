"""Write the stress set: small pictures of the kinds on which codecs for photographs break.

    python benchmarks/stress/make.py FOLDER

The pictures are the same on every run with one version of Pillow (whose own font they use).
They are apart from the tiles of aecodec.training.synthetic, so that they stay a test.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "tests" / "data" / "crop.png"
SENTENCE = (
    "the quick brown fox jumps over a lazy dog while 1,024 zebras (and 7 quails) vex "
    "Jack's big sphinx; however, no codec should smear what was written here."
)
WORDS = SENTENCE.split()
Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def lines(count: int, words: int) -> list[str]:
    """Lines of text, each beginning one word later than the last one."""
    doubled = WORDS * 3
    return [" ".join(doubled[i % len(WORDS) :][:words]) for i in range(count)]


def page(width: int, height: int, paper: Colour, ink: Colour) -> Image.Image:
    """Text of falling size, top to bottom."""
    image = Image.new("RGB", (width, height), paper)
    draw, y, size = ImageDraw.Draw(image), 6, 30.0
    for line in lines(60, 16):
        draw.text((8, y), line, fill=ink, font=ImageFont.load_default(size=round(size)))
        y, size = y + round(size * 1.25), max(size * 0.92, 9.0)
    return image


def text() -> Image.Image:
    """Black on white."""
    return page(512, 384, (255, 255, 255), (0, 0, 0))


def text_coloured() -> Image.Image:
    """Yellow on dark blue, beside red on green, whose luma is nearly the same."""
    image = page(512, 384, (10, 10, 70), (255, 230, 60))
    image.paste(page(256, 384, (0, 130, 0), (220, 30, 30)), (256, 0))
    return image


def screenshot() -> Image.Image:
    """Two windows with bars, buttons, a list and a photograph on a blue desktop."""
    image = Image.new("RGB", (512, 384), (0, 98, 152))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=11)
    for left, top, right, bottom in ((16, 24, 330, 300), (200, 120, 500, 370)):
        draw.rounded_rectangle((left, top, right, bottom), 6, (246, 246, 246), (90, 90, 90))
        draw.rectangle((left + 1, top + 6, right - 1, top + 22), fill=(60, 60, 72))
        draw.text((left + 8, top + 7), "aecodec - stress set", fill=(255, 255, 255), font=font)
        for i, colour in enumerate((RED, (255, 190, 0), (0, 190, 60))):
            x = right - 16 - 16 * i
            draw.ellipse((x, top + 9, x + 10, top + 19), fill=colour)
        for i, line in enumerate(lines((bottom - top - 60) // 15, 7)):
            y = top + 30 + 15 * i
            if i == 3:
                draw.rectangle((left + 4, y - 1, right - 4, y + 13), fill=(30, 110, 220))
            ink = (255, 255, 255) if i == 3 else (30, 30, 30)
            draw.text((left + 8, y), line, fill=ink, font=font)
        button = (right - 74, bottom - 26, right - 8, bottom - 6)
        draw.rounded_rectangle(button, 4, (225, 225, 225), (120, 120, 120))
        draw.text((right - 60, bottom - 23), "Cancel", fill=(0, 0, 0), font=font)
    image.paste(photo(112, 96), (376, 160))
    return image


def line_art() -> Image.Image:
    """Smoothed arcs, fans and outlines in black ink."""
    image = Image.new("RGB", (1024, 768), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for i in range(14):
        draw.ellipse((40 + 20 * i, 60 + 12 * i, 560 - 8 * i, 640 - 18 * i), outline=0, width=3)
        draw.line((600, 700, 560 + 34 * i, 60 + 2 * i * i), fill=0, width=2 + i // 4)
        draw.rectangle((640 + 12 * i, 420 + 9 * i, 1000 - 4 * i, 720 - 6 * i), outline=0, width=2)
    return image.reduce(2)


def noise_white() -> Pixels:
    """Grey white noise, uniform over all levels."""
    grain = np.random.default_rng(1).integers(0, 256, (256, 256, 1), np.uint8)
    return np.repeat(grain, 3, 2)


def noise_coloured() -> Pixels:
    """Every sample on its own, uniform over all levels."""
    return np.random.default_rng(2).integers(0, 256, (256, 256, 3), np.uint8)


def noise_extreme() -> Pixels:
    """Every sample 0 or 255: the largest variance there is."""
    return np.random.default_rng(3).integers(0, 2, (256, 256, 3), np.uint8) * np.uint8(255)


def flat() -> Pixels:
    """One saturated colour."""
    return np.full((256, 256, 3), (230, 40, 120), np.uint8)


def flat_white() -> Pixels:
    """White: nothing may turn up in it."""
    return np.full((256, 256, 3), 255, np.uint8)


def gradient_grey() -> Pixels:
    """A slow diagonal slope from black to white."""
    y, x = np.mgrid[:384, :512]
    return np.repeat(((x + y) * 255 // 894).astype(np.uint8)[..., None], 3, 2)


def gradient_saturated() -> Pixels:
    """Hue from left to right at full saturation, darker from top to bottom."""
    y, x = np.mgrid[:384, :512]
    hue = np.abs((x[..., None] * 6 / 512 + np.array([0, 4, 2])) % 6 - 3) - 1
    level = 255 * np.clip(hue, 0, 1) * (1 - 0.7 * y[..., None] / 383)
    return np.rint(level).astype(np.uint8)


def pixel_art() -> Pixels:
    """A mirrored sprite of 32x32 cells in eight colours, every cell 8x8 pixels."""
    rng = np.random.default_rng(4)
    palette = rng.integers(0, 256, (8, 3), np.uint8)
    cells = rng.integers(0, 8, (11, 6)).repeat(3, 0).repeat(3, 1)[:32, :16]
    cells = np.where(rng.random((32, 16)) < 0.2, rng.integers(0, 8, (32, 16)), cells)
    return palette[np.hstack([cells, cells[:, ::-1]])].repeat(8, 0).repeat(8, 1)


def chroma_edges() -> Image.Image:
    """Red, green, blue, cyan, magenta and yellow shapes that touch, with hard edges."""
    image = Image.new("RGB", (384, 384), RED)
    draw = ImageDraw.Draw(image)
    draw.rectangle((128, 0, 255, 383), fill=GREEN)
    draw.rectangle((256, 0, 383, 383), fill=BLUE)
    for i, colour in enumerate(((0, 255, 255), (255, 0, 255), (255, 255, 0))):
        draw.ellipse((40 + 110 * i, 40, 110 + 110 * i, 110), fill=colour)
        draw.polygon([(20, 160 + 70 * i), (370, 180 + 70 * i), (200, 215 + 70 * i)], fill=colour)
    return image


def checkerboard() -> Pixels:
    """Black and white pixels in turn: all energy at the highest frequency."""
    y, x = np.mgrid[:256, :256]
    return np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, 2)


def checkerboard_coloured() -> Pixels:
    """Red and blue pixels in turn: chroma at the highest frequency."""
    y, x = np.mgrid[:256, :256]
    return np.array([RED, BLUE], np.uint8)[(x + y) % 2]


def lines_one_pixel() -> Image.Image:
    """Straight lines one pixel wide, not smoothed, at all angles and growing distances."""
    image = Image.new("RGB", (384, 384), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for i in range(18):
        draw.line((2 + i * (i + 2), 0, 2 + i * (i + 2), 120), fill=(0, 0, 0))
        draw.line((0, 130 + i * (i + 2) // 3, 180, 130 + i * (i + 2) // 3), fill=BLUE)
        draw.line((383, 383, 60 + 18 * i, 250), fill=(200, 0, 0))
        draw.line((0, 383, 190 + i, 250 - 6 * i), fill=(0, 120, 0))
    return image


def photo(width: int, height: int) -> Image.Image:
    """Part of a photograph, from its top left corner."""
    with Image.open(PHOTO) as image:
        return image.convert("RGB").crop((0, 0, width, height))


def half_photo() -> Image.Image:
    """A photograph beside a page of text."""
    image = page(448, 224, (255, 255, 255), (0, 0, 0))
    image.paste(photo(224, 224), (224, 0))
    return image


PICTURES: tuple[Callable[[], Image.Image | Pixels], ...] = (
    text, text_coloured, screenshot, line_art, noise_white, noise_coloured, noise_extreme, flat,
    flat_white, gradient_grey, gradient_saturated, pixel_art, chroma_edges, checkerboard,
    checkerboard_coloured, lines_one_pixel, half_photo,
)  # fmt: skip


def make(folder: Path) -> None:
    """Write every picture of the set as PNG; FOLDER is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for draw in PICTURES:
        made = draw()
        image = made if isinstance(made, Image.Image) else Image.fromarray(made)
        image.save(folder / f"{draw.__name__.replace('_', '-')}.png")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/stress/make.py FOLDER")
    make(Path(sys.argv[1]))
