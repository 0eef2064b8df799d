"""Latents as features: the ones a decoder has, put together, without pixels being made."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import synthetic

import aecodec
from aecodec import api, codec, container, decoding
from aecodec.model import open_model
from aecodec.picture import to_image
from aecodec.transforms import OnnxNetworks


def drawn(y_hat: npt.NDArray[np.float32], data: bytes) -> npt.NDArray[np.int64]:
    """The synthesis of a whole plane of latents at the quality of a file, cut to its size."""
    found = aecodec.info(data)
    networks = decoding.model_of(open_model(found.model), container.read(data)).networks
    x_hat = networks.synthesis(y_hat, round(found.quality * 100))
    return x_hat[: found.height, : found.width].astype(int)


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [(1, 1, (4, 4)), (64, 65, (8, 4)), (130, 100, (8, 12))],
)
def test_shape_and_kind(width: int, height: int, shape: tuple[int, int]) -> None:
    y_hat = aecodec.latents(synthetic.picture("RGB", width, height).pixels)
    assert y_hat.dtype == np.float32
    assert y_hat.shape[1:] == shape
    assert y_hat.shape[0] == open_model().weights.manifest["config"]["M"]


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_latents_of_a_picture_are_those_of_its_file(mode: str) -> None:
    image = to_image(synthetic.picture(mode, 90, 70, metadata=True))
    y_hat = aecodec.latents(image, 40)
    data = aecodec.encode(image, 40)
    assert aecodec.info(data).axes == (0, 0, 0, 0, 0, 0)
    assert np.array_equal(y_hat, aecodec.read_latents(data))
    assert not np.array_equal(y_hat, aecodec.latents(image, 80))
    small = aecodec.latents(image, 40, model="small")
    assert np.array_equal(small, aecodec.read_latents(aecodec.encode(image, 40, model="small")))
    assert not np.array_equal(y_hat, small)


def test_colours_are_not_turned() -> None:
    pixels = synthetic.picture("orange", 90, 70).pixels
    turned, plain = (
        aecodec.read_latents(codec.encode_picture(api.picture_of(pixels), 40, turns=turns))
        for turns in (True, False)
    )
    found = aecodec.latents(pixels, 40)
    assert np.array_equal(found, plain)
    assert not np.array_equal(found, turned)


@pytest.mark.parametrize("tile", [0, 128])
def test_they_are_what_the_pixels_are_made_of(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the picture is cut into tiles: each lies in its place."""
    if tile:
        monkeypatch.setattr(codec, "TILE", tile)
        monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 0)
    pixels = synthetic.picture("RGB", 300, 210).pixels
    data = aecodec.encode(pixels, 90)
    assert aecodec.info(data).tiles == (6 if tile else 1)
    y_hat = aecodec.read_latents(data)
    assert y_hat.shape[1:] == (16, 20)
    assert np.abs(drawn(y_hat, data) - np.asarray(aecodec.decode(data))).max() <= 1


def test_no_pixels_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    data = aecodec.encode(synthetic.picture("RGB", 64, 64).pixels)

    def refuse(*arguments: object) -> None:
        raise AssertionError("the synthesis was run")

    monkeypatch.setattr(OnnxNetworks, "synthesis", refuse)
    assert aecodec.read_latents(data).any()


def test_natural_units_compare_between_qualities() -> None:
    pixels = synthetic.picture("RGB", 128, 128).pixels
    fine, coarse = aecodec.latents(pixels, 95), aecodec.latents(pixels, 50)
    strongest = np.argsort(np.abs(fine).mean((1, 2)))[-8:]
    ratio = np.abs(coarse[strongest]).mean() / np.abs(fine[strongest]).mean()
    assert ratio == pytest.approx(1, abs=0.1)


def test_a_grey_picture_uses_the_luma_channels_only() -> None:
    y_hat = aecodec.latents(synthetic.picture("L", 64, 64).pixels)
    luma = open_model().prior.luma
    assert y_hat[luma].any()
    assert not y_hat[~luma].any()


def test_errors() -> None:
    data = aecodec.encode(synthetic.picture("RGB", 40, 40).pixels)
    with pytest.raises(aecodec.AecError, match=r"not an \.aec file"):
        aecodec.read_latents(b"\x89PNG\r\n\x1a\n" + bytes(40))
    with pytest.raises(aecodec.AecError):
        aecodec.read_latents(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(aecodec.AecError, match="pixels"):
        aecodec.read_latents(data, max_pixels=40 * 40 - 1)
    with pytest.raises(aecodec.AecError, match="quality"):
        aecodec.latents(np.zeros((8, 8), np.uint8), quality=101)
