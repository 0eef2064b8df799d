"""Colour that alpha hides is not kept, and costs next to nothing; all that is seen is."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import synthetic

from aecodec import codec, container, rate
from aecodec.picture import Picture


def cut_out(mode: str = "RGBA", under: int | None = None) -> Picture:
    """A disc of a picture; where it is clear, one level, or what the picture goes on with."""
    whole = synthetic.picture(mode[:-1], 200, 160)
    alpha = (np.hypot(*np.mgrid[-80:80, -100:100]) < 60).astype(np.uint8) * np.uint8(255)
    pixels = whole.pixels.copy()
    if under is not None:
        pixels[alpha == 0] = under
    return Picture(pixels, alpha)


def seen(picture: Picture, source: Picture) -> np.ndarray:
    assert source.alpha is not None
    return picture.pixels[source.alpha > 0]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("side", [0, 128])
def test_what_is_hidden_makes_no_difference(
    mode: str, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if side:
        monkeypatch.setattr(codec, "TILE", side)
        monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 0)
    files = {codec.encode_picture(cut_out(mode, under), 60) for under in (None, 0, 255)}
    assert len(files) == 1
    (data,) = files
    whole = codec.encode_picture(dataclasses.replace(cut_out(mode), alpha=None), 60)
    assert len(data) - len(container.read(data).alpha or b"") < 0.5 * len(whole)
    source, back = cut_out(mode), codec.decode_file(data)
    assert np.array_equal(back.alpha, source.alpha)  # type: ignore[arg-type]
    error = seen(back, source).astype(int) - seen(source, source)
    plain = seen(codec.decode_file(whole), source).astype(int) - seen(source, source)
    assert np.square(error).mean() < 1.1 * np.square(plain).mean()


def test_psnr_is_of_what_is_seen() -> None:
    source = cut_out(under=0)
    encoder = codec.Encoder(source)
    data = encoder.encode(60)
    back = codec.decode_file(data)
    error = seen(back, source).astype(float) - seen(source, source)
    expected = 10 * math.log10(255**2 / np.square(error).mean())
    assert rate.psnr(source, back) == pytest.approx(expected)
    assert encoder.verify(data) == pytest.approx(expected)
    hit = rate.meet(rate.Target("psnr", 36), source, codec.Encoder(source))
    assert hit.psnr == pytest.approx(36, abs=0.07)


def test_a_picture_that_is_hidden_as_a_whole_is_kept() -> None:
    """Alpha of such files is hardly ever meant."""
    pixels = synthetic.picture("RGB", 40, 30).pixels
    source = Picture(pixels, np.zeros((30, 40), np.uint8))
    encoder = codec.Encoder(source)
    data = encoder.encode(75)
    back = codec.decode_file(data)
    assert np.array_equal(
        back.pixels, codec.decode_file(codec.encode_picture(Picture(pixels))).pixels
    )
    assert encoder.verify(data) == pytest.approx(rate.psnr(Picture(pixels), Picture(back.pixels)))


def test_exact_pictures_keep_it() -> None:
    page = np.repeat(synthetic.text(120, 90)[..., None], 3, 2)
    alpha = np.full((90, 120), 255, np.uint8)
    alpha[:, :50] = 0
    data = codec.encode_picture(Picture(page, alpha), 90)
    assert container.read_header(data).exact
    assert np.array_equal(codec.decode_file(data).pixels, page)
