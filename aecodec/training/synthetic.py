"""Training tiles that are not photographs: text, screens, drawings, noise, flat and hard colour.

Training pictures are photographs, but people compress screenshots and scans too. A small share
of tiles made here keeps the codec sane on them. Every tile is a function of the generator (and
of the fonts the machine has: without any, Pillow's own is used).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from aecodec.training import drawing
from aecodec.training.drawing import Box, Pixels


def text(rng: np.random.Generator, size: int, photo: Pixels) -> Pixels:
    """A page: one to three blocks of text of different sizes and sometimes colours."""
    paper, ink = drawing.paper_and_ink(rng)
    image, draw = drawing.blank(size, paper)
    draw.fontmode = "1" if rng.random() < 0.2 else "L"  # 1: without smoothed edges
    cuts = np.sort(rng.integers(0, size, rng.integers(0, 3)))
    left = int(rng.integers(-size // 8, size // 8))
    for top, bottom in zip([0, *cuts], [*cuts, size], strict=True):
        points = round(drawing.log_uniform(rng, 8, 64))
        colour = drawing.colour(rng) if rng.random() < 0.15 else ink
        drawing.write(rng, draw, (left, int(top), size, int(bottom) + points), points, colour)
    return np.asarray(image)


def _window(
    rng: np.random.Generator, image: Image.Image, draw: ImageDraw.ImageDraw, box: Box, photo: Pixels
) -> None:
    """One window: border, title bar, then text, buttons or icons, and perhaps a photograph."""
    x0, y0, x1, y1 = box
    paper, ink = drawing.paper_and_ink(rng)
    points = int(rng.integers(9, 18))
    bar = points + int(rng.integers(4, 16))
    draw.rounded_rectangle(
        box, radius=int(rng.choice([0, 0, 6, 10])), fill=paper, outline=drawing.colour(rng)
    )
    draw.rectangle((x0 + 1, y0 + 1, x1 - 1, min(y0 + bar, y1 - 1)), fill=drawing.colour(rng))
    draw.text(
        (x0 + 6, y0 + 2),
        drawing.letters(rng, 14),
        fill=drawing.colour(rng),
        font=drawing.font(rng, points),
    )
    top = y0 + bar + 4
    if rng.random() < 0.4 and y1 - top > 40 and x1 - x0 > 60:
        part = drawing.crop(rng, photo, int(rng.integers(40, x1 - x0 - 8)), (y1 - top) // 2)
        image.paste(Image.fromarray(np.ascontiguousarray(part)), (x0 + 4, top))
        top += part.shape[0] + 4
    side = int(rng.integers(30, 90)) if rng.random() < 0.4 and x1 - x0 > 140 else 0
    if side:
        _icons(rng, draw, (x0 + 4, top, x0 + side, y1 - 4))
    drawing.write(rng, draw, (x0 + 6 + side, top, x1 - 6, y1 - bar - 8), points, ink)
    for x in range(x0 + 8, x1 - 70, 80):
        if rng.random() < 0.6 and y1 - bar > top:
            button = (x, y1 - bar - 2, x + 66, y1 - 5)
            draw.rounded_rectangle(
                button,
                radius=int(rng.integers(0, 6)),
                fill=drawing.colour(rng),
                outline=drawing.colour(rng),
            )
            draw.text(
                (x + 8, y1 - bar), drawing.letters(rng, 6), fill=ink, font=drawing.font(rng, points)
            )


def _icons(rng: np.random.Generator, draw: ImageDraw.ImageDraw, box: Box) -> None:
    """A grid of small shapes."""
    side = int(rng.integers(8, 32))
    for y in range(box[1], box[3] - side, side + 6):
        for x in range(box[0], box[2] - side, side + 6):
            place = (x, y, x + side, y + side)
            shape = rng.integers(4)
            if shape == 0:
                draw.ellipse(place, fill=drawing.colour(rng), outline=drawing.colour(rng))
            elif shape == 1:
                draw.rectangle(place, fill=drawing.colour(rng))
            elif shape == 2:
                draw.polygon(
                    [(x, y + side), (x + side // 2, y), (x + side, y + side)], drawing.colour(rng)
                )
            else:
                draw.line((x, y, x + side, y + side), fill=drawing.colour(rng), width=2)


def screenshot(rng: np.random.Generator, size: int, photo: Pixels) -> Pixels:
    """A desktop (plain, gradient or photograph) with windows on it, or one window filling it."""
    image, draw = drawing.blank(size, drawing.colour(rng))
    if rng.random() < 0.4:
        back = (
            gradient(rng, size, photo)
            if rng.random() < 0.5
            else drawing.crop(rng, photo, size, size)
        )
        image.paste(Image.fromarray(np.ascontiguousarray(back)), (0, 0))
    if rng.random() < 0.4:
        margin = int(rng.integers(0, size // 4))
        _window(rng, image, draw, (-margin, -margin, size + margin, size + margin), photo)
    else:
        _icons(rng, draw, (8, 8, size // 2, size))
        for _ in range(rng.integers(1, 4)):
            _window(rng, image, draw, drawing.box(rng, size, size // 3), photo)
    return np.asarray(image)


def line_art(rng: np.random.Generator, size: int, photo: Pixels) -> Pixels:
    """Lines, arcs and outlines in one ink; half of the tiles have smoothed edges."""
    paper, ink = drawing.paper_and_ink(rng)
    scale = int(rng.integers(1, 3))
    side = size * scale
    image, draw = drawing.blank(side, paper)
    width = scale * round(drawing.log_uniform(rng, 1, 5))
    for _ in range(rng.integers(3, 25)):
        x0, y0, x1, y1 = drawing.box(rng, side, 2)
        shape = rng.integers(6)
        if shape == 0:
            draw.ellipse((x0, y0, x1, y1), outline=ink, width=width)
        elif shape == 1:
            start = int(rng.integers(360))
            draw.arc((x0, y0, x1, y1), start, start + int(rng.integers(30, 300)), ink, width)
        elif shape == 2:
            draw.rectangle((x0, y0, x1, y1), outline=ink, width=width)
        elif shape == 3:
            draw.line(rng.integers(0, side, 12).tolist(), fill=ink, width=width, joint="curve")
        else:
            ends = (x0, y0, x1, y1) if shape == 4 else (x0, y1, x1, y0)
            draw.line(ends, fill=ink, width=width)
    return np.asarray(image if scale == 1 else image.reduce(scale))


def noise(rng: np.random.Generator, size: int, photo: Pixels) -> Pixels:
    """Gaussian or uniform noise, grey or coloured, faint to full range, on a colour or photo."""
    channels = 1 if rng.random() < 0.4 else 3
    amplitude = drawing.log_uniform(
        rng, 2, 90
    )  # standard deviation; strong noise is rare: it costs most
    if rng.random() < 0.5:
        grain = rng.standard_normal((size, size, channels), np.float32)
    else:
        grain = (rng.random((size, size, channels), np.float32) - 0.5) * np.float32(12**0.5)
    base = np.empty((size, size, 3), np.uint8)
    base[:] = drawing.colour(rng) if rng.random() < 0.5 else 128
    if rng.random() < 0.3:
        part = drawing.crop(rng, photo, size, size)
        base[: part.shape[0], : part.shape[1]] = part
    return np.clip(np.rint(base + grain * np.float32(amplitude)), 0, 255).astype(np.uint8)


def flat(rng: np.random.Generator, size: int, photo: Pixels) -> Pixels:
    """One colour."""
    return np.asarray(drawing.blank(size, drawing.colour(rng))[0])


def gradient(rng: np.random.Generator, size: int, photo: Pixels) -> Pixels:
    """A linear or radial run between two colours, or over the rainbow, smooth or in bands."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2)
    if rng.random() < 0.6:
        angle = rng.uniform(0, 2 * np.pi)
        t = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
        t = (t - t.min()) / (t.max() - t.min())
    else:
        cx, cy = rng.uniform(-1, 1, 2).astype(np.float32)
        t = np.sqrt((x - cx) ** 2 + (y - cy) ** 2) / np.float32(rng.uniform(0.7, 2.5))
    t = np.minimum(t, np.float32(1)) * np.float32(rng.choice([1.0, rng.uniform(0.05, 1.0)]))
    if rng.random() < 0.25:
        shift = np.arange(3, dtype=np.float32) / 3 + np.float32(rng.random())
        out = np.float32(127.5) * (1 + np.cos(np.float32(2 * np.pi) * (t[..., None] + shift)))
    else:
        start, end = np.array([drawing.colour(rng), drawing.colour(rng)], np.float32)
        if rng.random() < 0.25:
            bands = np.float32(rng.integers(3, 24))
            t = np.floor(t * bands) / bands
        out = start + t[..., None] * (end - start)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def pixel_art(rng: np.random.Generator, size: int, photo: Pixels) -> Pixels:
    """A small palette in squares of 2 to 16 pixels: random cells, mirrored sprites, or a photo."""
    block = int(rng.choice([2, 3, 4, 5, 6, 8, 10, 12, 16]))
    side = -(-size // block)
    palette = np.array([drawing.colour(rng) for _ in range(rng.integers(2, 17))], np.uint8)
    kind = rng.random()
    if kind < 0.3:
        part = np.ascontiguousarray(drawing.crop(rng, photo, size, size))
        small = Image.fromarray(part).resize((side, side), Image.Resampling.BOX)
        small = small.quantize(len(palette), dither=Image.Dither(int(rng.choice([0, 3]))))
        cells = np.asarray(small.convert("RGB"))
    else:
        # Coarse cells chosen first, so that neighbours are often alike as in drawn sprites.
        coarse = rng.integers(len(palette), size=(side // 3 + 1, side // 3 + 1))
        index = coarse.repeat(3, 0).repeat(3, 1)[:side, :side]
        loose = rng.random((side, side)) < rng.uniform(0, 0.5)
        index = np.where(loose, rng.integers(len(palette), size=(side, side)), index)
        if kind < 0.7:
            index = np.maximum(index, index[:, ::-1])
        cells = palette[index]
    return cells.repeat(block, 0).repeat(block, 1)[:size, :size]


def chroma(rng: np.random.Generator, size: int, photo: Pixels) -> Pixels:
    """Saturated shapes, stripes or checkerboards that touch: the hardest edges between colours."""
    corners = [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 255), (0, 255, 255), (255, 255, 0)]
    colours = np.array(corners, np.uint8)[rng.permutation(6)]
    if rng.random() < 0.4:
        step = round(drawing.log_uniform(rng, 1, 32))
        cells = np.arange(size) // step
        rows = cells[:, None] if rng.random() < 0.6 else 0 * cells[:, None]  # 0: stripes
        board = colours[(cells[None, :] + rows) % int(rng.integers(2, 4))]
        return board if rng.random() < 0.5 else board.transpose(1, 0, 2)
    image, draw = drawing.blank(size, tuple(colours[0].tolist()))
    for _ in range(rng.integers(2, 20)):
        fill = tuple(colours[rng.integers(6)].tolist())
        shape = rng.integers(3)
        if shape == 0:
            draw.ellipse(drawing.box(rng, size, 4), fill=fill)
        elif shape == 1:
            draw.rectangle(drawing.box(rng, size, 4), fill=fill)
        else:
            draw.polygon(rng.integers(0, size, 6).tolist(), fill=fill)
    return np.asarray(image)


def chart(rng: np.random.Generator, size: int, photo: Pixels) -> Pixels:
    """Axes, grid, labels, and bars, curves, points or a pie, with hard edges."""
    paper, ink = drawing.paper_and_ink(rng)
    image, draw = drawing.blank(size, paper)
    left, bottom = size // 8, size - size // 8
    count = int(rng.integers(3, 14))
    step = max((size - left) // count, 3)
    if rng.random() < 0.6:
        grid = drawing.colour(rng)
        for at in range(0, bottom, step):
            draw.line((left, at, size, at), fill=grid)
    colours = [drawing.colour(rng) for _ in range(3)]
    kind = rng.integers(4)
    if kind == 0:
        for i, x in enumerate(range(left, size, step)):
            top = int(rng.integers(0, bottom))
            draw.rectangle((x + 1, top, x + step - 2, bottom), fill=colours[i % 3])
    elif kind == 1:
        for colour in colours:
            ys = np.clip(bottom / 2 + rng.normal(0, size / 16, count).cumsum(), 0, bottom)
            points = [(left + i * step, int(y)) for i, y in enumerate(ys)]
            draw.line(points, fill=colour, width=int(rng.integers(1, 5)))
    elif kind == 2:
        for x, y in rng.integers(left, bottom, (20 * count, 2)).tolist():
            draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colours[(x + y) % 3])
    else:
        ends = np.append(np.sort(rng.integers(0, 360, count)), 360).tolist()
        for i, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            draw.pieslice((left, left, bottom, bottom), start, end, colours[i % 3], ink)
    draw.line((left, 0, left, bottom, size, bottom), fill=ink, width=int(rng.integers(1, 3)))
    font = drawing.font(rng, max(size // 20, 8))
    for at in range(left, size, 2 * step):
        draw.text((at, bottom + 4), str(rng.integers(1000)), fill=ink, font=font)
        draw.text((2, at - left), str(rng.integers(100)), fill=ink, font=font)
    return np.asarray(image)


def caption(rng: np.random.Generator, size: int, photo: Pixels) -> Pixels:
    """A photograph with writing on it, or beside a page of text."""
    image = Image.fromarray(text(rng, size, photo))
    wide = size if rng.random() < 0.5 else int(rng.integers(size // 4, size))
    part = Image.fromarray(np.ascontiguousarray(drawing.crop(rng, photo, wide, size)))
    image.paste(part, (0, 0) if rng.random() < 0.5 else (size - part.width, 0))
    if wide == size:
        points = round(drawing.log_uniform(rng, 10, 40))
        place = (int(rng.integers(0, size // 2)), int(rng.integers(0, size)))
        draw = ImageDraw.Draw(image)
        ink, edge = drawing.paper_and_ink(rng)
        draw.text(
            place, drawing.letters(rng, 20), fill=ink, font=drawing.font(rng, points),
            stroke_width=int(rng.integers(0, 3)), stroke_fill=edge,
        )  # fmt: skip
    return np.asarray(image)


Kind = Callable[[np.random.Generator, int, Pixels], Pixels]
KINDS: dict[Kind, float] = {  # and how often each is taken
    text: 0.2, screenshot: 0.2, caption: 0.1, line_art: 0.1, chart: 0.1, gradient: 0.08,
    chroma: 0.08, pixel_art: 0.07, noise: 0.05, flat: 0.02,
}  # fmt: skip


def synthetic_patch(rng: np.random.Generator, size: int, photo: Pixels) -> Pixels:
    """One tile (size, size, 3), uint8; `photo` (H, W, 3) gives the photographic parts."""
    kinds = list(KINDS)
    return kinds[rng.choice(len(kinds), p=list(KINDS.values()))](rng, size, photo)
