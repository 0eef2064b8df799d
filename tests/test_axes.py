"""Turned colour axes: the rotation, what it saves, and files that have one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import synthetic

import aecodec
from aecodec import axes, codec, coder, container, effort
from aecodec.axes import NONE, matrix, turned_model
from aecodec.model import open_model
from aecodec.picture import Picture
from aecodec.transforms import OnnxNetworks

Pixels = npt.NDArray[np.uint8]


def tinted(height: int = 150, width: int = 170) -> Pixels:
    """A picture under light of one colour."""
    return synthetic.picture("orange", width, height).pixels


@pytest.mark.parametrize("numbers", [(0, 0, 0), (127, -127, 127), (0, 1, 0), (-40, 30, 12)])
def test_it_is_a_rotation(numbers: tuple[int, int, int]) -> None:
    turned = matrix((*numbers, 1, 2, 3))
    assert np.allclose(turned @ turned.T, np.eye(3))
    assert np.linalg.det(turned) == pytest.approx(1)
    assert np.allclose(turned @ numbers, numbers)  # what is turned around stays
    assert axes._rounded(axes._vector(turned) * axes.UNITS) == list(numbers)


def test_the_formula_is_that_of_the_document() -> None:
    """A quarter turn around blue, to the nearest unit, takes red to green."""
    turned = matrix((0, 0, round(np.pi / 2 * axes.UNITS), 0, 0, 0))  # out of range in a file
    assert np.allclose(turned @ [1, 0, 0], [0, 1, 0], atol=0.01)


def test_luma_goes_where_the_detail_is() -> None:
    pixels = tinted()
    detail = np.array([1.2, 0.6, 0.1]) / np.linalg.norm([1.2, 0.6, 0.1])
    best = max(
        axes.candidates(pixels, axes.colours_of(pixels), (0.5, 1.0)),
        key=lambda numbers: axes.USUAL[0] @ matrix(numbers) @ detail,
    )
    assert axes.USUAL[0] @ matrix(best) @ detail > 0.999


def test_shifts_keep_colours_in_range() -> None:
    """A dark and reddish picture leaves it when it is turned."""
    pixels = tinted() // 3
    pixels[..., 0] += 20
    colours = axes.colours_of(pixels)
    for numbers in axes.candidates(pixels, colours, (0.5, 1.0)):
        alone = axes.excess((*numbers[:3], 0, 0, 0), colours)
        assert axes.excess(numbers, colours) <= min(alone, 0.05)
    assert axes.excess(NONE, colours) == 0


@pytest.mark.parametrize("flat", [(200, 200), (8, 300), (1, 1)])
def test_nothing_to_turn(flat: tuple[int, int]) -> None:
    pixels = np.full((*flat, 3), 90, np.uint8)
    assert axes.candidates(pixels, axes.colours_of(pixels), (0.5, 1.0)) == []
    assert axes.guessed_axes(open_model(), pixels) == NONE
    assert axes.best_axes(open_model(), pixels, 5000, 4) == NONE


def test_a_picture_without_colour_is_not_turned() -> None:
    pixels = np.repeat(synthetic.picture("L", 150, 150).pixels[..., None], 3, 2)
    assert axes.guessed_axes(open_model(), pixels) == NONE
    assert axes.best_axes(open_model(), pixels, 5000, 4) == NONE


def test_patches_come_from_all_over_a_large_picture() -> None:
    pixels = np.zeros((1000, 140, 3), np.uint8)
    pixels[:, :, 0] = np.arange(1000)[:, None] // 4
    patches = axes.sample(pixels, 2)
    assert patches.shape == (256, 140, 3)
    assert (patches[0, 0, 0], patches[-1, 0, 0]) == (186 // 4, (686 + 127) // 4)
    assert axes.sample(patches, 4) is patches


@pytest.mark.parametrize("level", [3, 4])
def test_turning_saves_bytes_and_error(level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = tinted()
    turned = aecodec.encode(pixels, 50, effort=level)
    assert aecodec.info(turned).axes != NONE
    monkeypatch.setattr(coder, "guessed_axes", lambda *arguments: NONE)
    monkeypatch.setattr(coder, "best_axes", lambda *arguments: NONE)
    plain = aecodec.encode(pixels, 50, effort=level)
    assert aecodec.info(plain).axes == NONE
    assert len(turned) < 0.95 * len(plain)
    error = [
        np.square(np.asarray(aecodec.decode(data)).astype(float) - pixels).mean()
        for data in (turned, plain)
    ]
    assert error[0] < error[1]


def test_low_efforts_and_grey_pictures_are_not_turned() -> None:
    for level in (1, 2):
        assert aecodec.info(aecodec.encode(tinted(), 50, effort=level)).axes == NONE
    assert aecodec.info(aecodec.encode(tinted()[..., 0], 50)).axes == NONE


def test_the_smallest_files_are_spared_six_bytes() -> None:
    assert aecodec.info(aecodec.encode(tinted(), 4.99)).axes == NONE
    assert aecodec.info(aecodec.encode(tinted(), 5)).axes != NONE


def test_a_model_without_graphs_for_it_codes_colours_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OnnxNetworks, "can_turn", False)
    assert aecodec.info(aecodec.encode(tinted(), 50)).axes == NONE


def test_tiles_verify_and_are_the_same_with_any_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "TILE", 128)
    monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 0)
    source = Picture(tinted())
    files = []
    for threads in (1, 3):
        encoder = codec.Encoder(source, threads=threads)
        data = encoder.encode(40)
        assert container.read_header(data).axes != NONE
        assert encoder.verify(data) > 25
        assert np.array_equal(encoder.decoded().pixels, codec.decode_file(data).pixels)
        files.append(data)
    assert files[0] == files[1]


@pytest.mark.parametrize("quality", [500, 5000, 9500])
def test_networks_turn_and_turn_back(quality: int) -> None:
    """As if the picture had been turned by hand, but for rounding and clipping."""
    numbers = (20, -9, 31, -4, 10, 7)
    plain = open_model().networks
    turned = turned_model(open_model(), numbers).networks
    pixels = synthetic.picture("RGB", 128, 128).pixels // 2 + 64
    by_hand = (pixels - 128.0) @ matrix(numbers).T + 128 + numbers[3:]
    u = plain.analysis(np.rint(by_hand).astype(np.uint8), quality)
    assert np.abs(u - turned.analysis(pixels, quality)).mean() < 0.05
    y_hat = turned.analysis(pixels, quality) * 64
    x_hat = plain.synthesis(y_hat, quality)
    unclipped = ((x_hat > 0) & (x_hat < 255)).all(2)
    back = (x_hat - 128.0 - numbers[3:]) @ matrix(numbers) + 128
    difference = np.abs(turned.synthesis(y_hat, quality) - np.clip(back, 0, 255))[unclipped]
    assert difference.max() < 1.6


def test_every_level_above_the_draft_turns() -> None:
    assert [number for number, level in effort.LEVELS.items() if level.turns] == list(range(3, 10))


def test_pytorch_turns_alike() -> None:
    torch = pytest.importorskip("torch")
    del torch
    from aecodec.torch_networks import TorchNetworks

    model = open_model()
    turn = matrix((20, -9, 31, 0, 0, 0)).astype(np.float32)
    shift = np.array([[-4], [10], [7]], np.float32)
    vectors = model.weights.tensors("vectors")
    other = TorchNetworks(model.weights.folder, vectors, "cpu").turned(turn, shift)
    ours = model.networks.turned(turn, shift)
    pixels = synthetic.picture("RGB", 128, 64).pixels
    u = ours.analysis(pixels, 5000)
    assert np.allclose(u, other.analysis(pixels, 5000), atol=1e-3)
    difference = ours.synthesis(u * 64, 5000).astype(int) - other.synthesis(u * 64, 5000)
    assert np.abs(difference).max() <= 1
