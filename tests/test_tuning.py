"""The filter's last layer tuned to a picture: better pixels for the bytes, on every runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import aecodec
from aecodec import codec, container, tuning
from aecodec.cost import Cost
from aecodec.errors import AecError, FormatError
from aecodec.model import Model, open_model
from aecodec.picture import from_array
from aecodec.tuning import CLASSES, Change, Layer, Sample
from aecodec.weights import id_of

CROP = Path(__file__).parent / "data" / "crop.png"
Pixels = npt.NDArray[np.uint8]
RNG = np.random.default_rng(7)


@pytest.fixture(scope="module")
def photo() -> Pixels:
    with Image.open(CROP) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model(threads=1)


@pytest.fixture(scope="module")
def tuned(photo: Pixels) -> bytes:
    return aecodec.encode(photo, 95, effort=4)


def error(data: bytes, pixels: Pixels) -> float:
    """Mean squared error of a file."""
    return float(np.square(np.asarray(aecodec.decode(data), float) - pixels).mean())


def without(data: bytes) -> bytes:
    """The same file with the filter as it is."""
    return container.write(replace(container.read(data), filter=None))


def test_a_tuned_file_is_worth_its_bytes(tuned: bytes, photo: Pixels, model: Model) -> None:
    plain, worth = without(tuned), Cost(model, 9500, grey=False).weight
    assert len(plain) < len(tuned)
    saved = worth * photo.size * (error(plain, photo) - error(tuned, photo))
    assert saved > 8 * (len(tuned) - len(plain))
    assert "FILTER" in dict(aecodec.info(tuned).chunks)


def test_small_pictures_are_not_tuned_by_default(photo: Pixels) -> None:
    assert container.read(aecodec.encode(photo, 95)).filter is None
    assert container.read(aecodec.encode(photo[..., 0], 95, effort=4)).filter is None


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 90, 3), (90, 1, 3), (2, 2, 3), (3, 5, 3)])
def test_the_smallest_pictures_are_coded_as_well(shape: tuple[int, int, int]) -> None:
    pixels = RNG.integers(0, 256, shape).astype(np.uint8)
    assert aecodec.decode(aecodec.encode(pixels, 95, effort=4)).size == (shape[1], shape[0])


def test_tiles_are_tuned_together_whatever_the_number_of_threads(
    photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "TILE", 128)
    monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 0)
    one, four = (aecodec.encode(photo, 95, threads=threads, effort=4) for threads in (1, 4))
    assert one == four
    assert container.read(one).filter is not None
    assert error(one, photo) < error(without(one), photo)


def test_some_strips_stand_for_a_large_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer(np.zeros((12, 4, 3, 3), np.int8), 0, np.ones(12))
    seen = RNG.integers(0, 256, (4, 640, 60)).astype(np.uint8)
    missing = np.rint(RNG.normal(0, 90, (12, 640, 60))).astype(np.float32)
    sums = []
    for most in (2**19, 640 * 60 // 4):
        monkeypatch.setattr(tuning, "MOST", most)
        sample = Sample(layer, 4 * 640 * 60)
        sample.add(seen, missing, slice(0, 640), slice(0, 60))
        sums.append(np.asarray(sample.seen))
    assert not np.array_equal(*sums)
    assert np.allclose(*sums, rtol=0.1)


@pytest.mark.parametrize("turned", [False, True])
def test_other_runtimes_decode_it_alike(tuned: bytes, turned: bool, model: Model) -> None:
    pytest.importorskip("torch")
    from aecodec.torch_networks import TorchNetworks

    file = container.read(tuned)
    if turned:
        file = replace(file, header=replace(file.header, axes=(9, -4, 12, 1, 0, -3)))
    networks = TorchNetworks(model.weights.folder, model.weights.tensors("vectors"), "cpu")
    pictures = [
        codec._decode_pixels(codec._model_of(each, file), file, 1).astype(int)
        for each in (model, replace(model, networks=networks))
    ]
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_verified_and_decoded_as_written(photo: Pixels) -> None:
    encoder = codec.Encoder(from_array(photo), effort=4)
    data = encoder.encode(95)
    assert container.read(data).filter is not None
    assert encoder.verify(data) > 30
    assert np.array_equal(encoder.decoded().pixels, np.asarray(aecodec.decode(data)))


def test_what_is_saved_is_what_was_foretold() -> None:
    """Squared error with the changed weights, as a convolution has it, against the moments."""
    seen = RNG.integers(0, 256, (4, 40, 37)).astype(np.uint8)
    missing = np.rint(RNG.normal(0, 90, (12, 40, 37))).astype(np.float32)
    amount = RNG.integers(-2, 3, (12, 4, 3, 3)).astype(np.int32)
    layer = Layer(np.zeros((12, 4, 3, 3), np.int8), 11, np.linspace(0.001, 0.002, 12))
    rows, columns = slice(2, 40), slice(0, 30)
    sample = Sample(layer, 4 * 40 * 37)
    sample.add(seen, missing, rows, columns)
    flat = amount.reshape(12, -1).T * layer.unit
    less = 2 * (flat * sample.missing).sum() / tuning.ERROR_UNITS
    less -= (flat * (np.asarray(sample.seen) @ flat)).sum()
    near = np.pad(seen.astype(float) - layer.zero, ((0, 0), (1, 1), (1, 1)))
    added = np.zeros(missing.shape)
    for i in range(3):
        for j in range(3):
            added += np.einsum("oc,chw->ohw", amount[:, :, i, j], near[:, i : i + 40, j : j + 37])
    error = missing / tuning.ERROR_UNITS
    left = error - added * layer.unit[:, None, None]
    found = (error**2 - left**2)[:, rows, columns].sum()
    assert less == pytest.approx(found, rel=1e-9)


def test_moments_do_not_depend_on_the_order_of_tiles(model: Model) -> None:
    parts = [
        (RNG.integers(0, 256, (32, 70, 40)).astype(np.uint8),
         np.rint(RNG.normal(0, 90, (12, 70, 40))).astype(np.float32))
        for _ in range(3)
    ]  # fmt: skip
    sums = []
    for order in ((0, 1, 2), (2, 0, 1)):
        sample = Sample(Layer.of(model, 0), 4 * 3 * 70 * 40)
        for index in order:
            sample.add(*parts[index], slice(0, 70), slice(0, 40))
        sums.append((sample.seen, sample.missing))
    assert np.array_equal(sums[0][0], sums[1][0])
    assert np.array_equal(sums[0][1], sums[1][1])


def any_change(model: Model) -> Change:
    shape = Layer.of(model, 0).weight.shape
    amount = np.rint(RNG.laplace(0, 0.7, shape)).astype(np.int32)
    tables = tuple(range(4, 4 + CLASSES))
    return Change(2, tables, amount)


def test_a_change_comes_back_from_its_bytes(model: Model) -> None:
    change = any_change(model)
    change.amount[3, 4, 1, 1] = 500  # beyond its table
    back = tuning.unpacked(change.packed(model), model, change.amount.shape)
    assert (back.shift, back.tables) == (change.shift, change.tables)
    assert np.array_equal(back.amount, change.amount)
    layer = Layer.of(model, 1)
    weights = change.applied(layer)
    assert weights.dtype == np.int8
    assert np.abs(weights.astype(int)).max() <= tuning.WEIGHT_LIMIT
    plain = np.abs(layer.weight.astype(int) + change.amount * 4) <= tuning.WEIGHT_LIMIT
    assert np.array_equal((weights - layer.weight)[plain], (change.amount * 4)[plain])


def test_wrong_changes_are_refused(tuned: bytes, model: Model) -> None:
    file = container.read(tuned)
    body = bytearray(any_change(model).packed(model))
    levels = len(model.y_tables.sizes)
    for wrong in (bytes([6]) + body[1:], body[:4] + bytes([levels]) + body[5:]):
        data = container.write(replace(file, filter=bytes(wrong)))
        with pytest.raises(FormatError, match="FILTER"):
            aecodec.decode(data)
    other = bytes.fromhex(id_of("small"))  # its last layer is not in 8 bits
    data = container.write(replace(file, header=replace(file.header, model_id=other)))
    with pytest.raises(FormatError, match="another kind of model"):
        aecodec.decode(data)


def test_random_bodies_decode_or_are_refused(tuned: bytes) -> None:
    file = container.read(tuned)
    for _ in range(20):
        tables = RNG.integers(0, 40, CLASSES).astype(np.uint8).tobytes()
        body = bytes([int(RNG.integers(0, 6))]) + tables + RNG.bytes(int(RNG.integers(1, 900)))
        data = container.write(replace(file, filter=body))
        try:
            assert aecodec.decode(data).size == (file.header.width, file.header.height)
        except AecError:
            continue


def test_best_effort_shows_the_picture_without_a_damaged_chunk(tuned: bytes, photo: Pixels) -> None:
    (chunk,) = (chunk for chunk in container.walk(tuned) if chunk.name == "FILTER")
    for at in (chunk.offset, chunk.start + 20):  # its type, its body
        damaged = bytearray(tuned)
        damaged[at] ^= 4
        with pytest.raises(AecError):
            aecodec.decode(bytes(damaged))
        picture, damage = codec.decode_damaged(bytes(damaged))
        assert damage
        assert not damage.tiles
        assert np.array_equal(picture.pixels, np.asarray(aecodec.decode(without(tuned))))
    assert damage.others == ("FILTER",)
