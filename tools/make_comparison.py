"""Make docs/comparison.png: the same crop as original, aecodec and JPEG at equal bytes.

python tools/make_comparison.py PICTURE [--quality 12] [--box LEFT TOP RIGHT BOTTOM]
"""

from __future__ import annotations

import io
from pathlib import Path

import click
from PIL import Image, ImageDraw, ImageFont

import aecodec

TARGET = Path(__file__).parents[1] / "docs" / "comparison.png"
Box = tuple[int, int, int, int]


def jpeg_of_size(image: Image.Image, limit: int) -> bytes:
    """The best JPEG (4:2:0, optimised) of at most `limit` bytes, or the smallest there is."""
    best = b""
    for quality in range(1, 96):
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality, optimize=True, subsampling="4:2:0")
        if best and out.tell() > limit:
            break
        best = out.getvalue()
    return best


def panel(image: Image.Image, box: Box, caption: str) -> Image.Image:
    """A crop, doubled in size, above its caption."""
    crop = image.crop(box)
    crop = crop.resize((crop.width * 2, crop.height * 2), Image.Resampling.NEAREST)
    out = Image.new("RGB", (crop.width, crop.height + 34), "white")
    out.paste(crop)
    font = ImageFont.load_default(20)
    ImageDraw.Draw(out).text((8, crop.height + 5), caption, fill="black", font=font)
    return out


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--quality", default=12.0, show_default=True)
@click.option("--box", nargs=4, type=int, default=(140, 60, 340, 280), show_default=True)
def main(path: Path, quality: float, box: Box) -> None:
    """Compare PICTURE with itself."""
    original = Image.open(path).convert("RGB")
    coded = aecodec.encode(original, quality)
    jpeg = jpeg_of_size(original, len(coded))
    panels = [
        panel(original, box, "original"),
        panel(aecodec.decode(coded), box, f"aecodec, {len(coded):,} bytes"),
        panel(Image.open(io.BytesIO(jpeg)), box, f"JPEG, {len(jpeg):,} bytes"),
    ]
    width = sum(p.width for p in panels) + 12 * (len(panels) - 1)
    out = Image.new("RGB", (width, panels[0].height), "white")
    left = 0
    for p in panels:
        out.paste(p, (left, 0))
        left += p.width + 12
    out.save(TARGET, optimize=True)
    click.echo(f"{TARGET}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
