"""A codec without weights that stands in for aecodec.codec where the codec is not what is tested.

Pixels are quantised with a step that falls with the quality, deflated, and put into a real
container, so that sizes and PSNR behave like those of the codec: both grow with the quality.

    python tests/fake_codec.py ARGS...      is the command line with this codec behind it
"""

from __future__ import annotations

import sys
import types
import zlib
from typing import Any

import numpy as np

from aecodec import alpha, container, rate
from aecodec.container import AecFile, Colour, Header, Tile
from aecodec.damage import Damage, survey
from aecodec.effort import level
from aecodec.errors import FormatError
from aecodec.picture import Picture

MODEL = bytes.fromhex("fa4ec0de")
calls: list[str] = []
options_seen: list[dict[str, Any]] = []
models_seen: list[str] = []


class Encoder:
    """Stands in for aecodec.codec.Encoder: effort makes no difference."""

    slow = False

    def __init__(self, picture: Picture, **options: Any) -> None:
        self.picture, self.data, self.report = picture, b"", options.get("report")
        self.options = {key: options[key] for key in ("metadata", "threads") if key in options}
        options_seen.append(options)

    def encode(self, quality: float = 75.0, *, draft: bool = False) -> bytes:
        self.data = sys.modules["aecodec.codec"].encode_picture(
            self.picture, quality, **self.options
        )
        return self.data

    def decoded(self) -> Picture:
        return _decode(container.read(self.data))

    def verify(self, data: bytes) -> float:
        decoded: Picture = sys.modules["aecodec.codec"].decode_file(data)
        return rate.psnr(self.picture, decoded)


def encode_picture(
    picture: Picture,
    quality: float = 75.0,
    *,
    metadata: str = "all",
    threads: int = 0,
    effort: int | None = None,
    model: str = "",
) -> bytes:
    calls.append("encode")
    models_seen.append(model)
    level(effort)
    colour = Colour.GREY if picture.pixels.ndim == 2 else Colour.RGB
    hundredths = round(quality * 100)
    has_alpha = picture.alpha is not None
    header = Header(MODEL, colour, has_alpha, picture.width, picture.height, hundredths)
    levels = np.rint(picture.pixels / _step(hundredths)).astype(np.uint8)
    return container.write(
        AecFile(
            header,
            (Tile(zlib.crc32(levels.tobytes()) & 0xFFFF, zlib.compress(levels.tobytes(), 1)),),
            alpha=alpha.pack_alpha(picture.alpha) if picture.alpha is not None else None,
            icc=picture.icc if metadata != "none" else None,
            exif=picture.exif if metadata == "all" else None,
            xmp=picture.xmp if metadata == "all" else None,
        )
    )


def decode_file(
    data: bytes, *, max_pixels: int = container.MAX_PIXELS, threads: int = 0
) -> Picture:
    calls.append("decode")
    return _decode(container.read(data, max_pixels))


def decode_damaged(
    data: bytes, *, max_pixels: int = container.MAX_PIXELS, threads: int = 0
) -> tuple[Picture, Damage]:
    calls.append("decode")
    file = container.read(data, max_pixels, damaged_ok=True)
    return _decode(file), survey(data, file.header, [], file.tiles[0] is None)


def _decode(file: AecFile) -> Picture:
    header, tile = file.header, file.tiles[0]
    planes = () if header.colour is Colour.GREY else (3,)
    shape = (header.height, header.width, *planes)
    plane = None
    if file.alpha is not None:
        plane = alpha.unpack_alpha(file.alpha, header.height, header.width)
    if tile is None:
        return Picture(np.full(shape, 128, np.uint8), plane, file.icc, file.exif, file.xmp)
    try:
        levels = np.frombuffer(zlib.decompress(tile.payload), np.uint8).reshape(shape)
    except (zlib.error, ValueError) as error:
        raise FormatError(f"damaged: {error}") from error
    pixels = np.clip(np.rint(levels * _step(header.quality)), 0, 255).astype(np.uint8)
    return Picture(pixels, plane, file.icc, file.exif, file.xmp)


def _step(hundredths: int) -> float:
    return float(np.exp((10000 - hundredths) / 10000 * np.log(200)))


def module() -> types.ModuleType:
    """This codec under the name of the real one."""
    fake = types.ModuleType("aecodec.codec")
    fake.Encoder = Encoder  # type: ignore[attr-defined]
    fake.encode_picture = encode_picture  # type: ignore[attr-defined]
    fake.decode_file = decode_file  # type: ignore[attr-defined]
    fake.decode_damaged = decode_damaged  # type: ignore[attr-defined]
    return fake


if __name__ == "__main__":
    sys.modules["aecodec.codec"] = module()
    from aecodec.cli import main

    main()
