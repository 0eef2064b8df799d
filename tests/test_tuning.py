"""The filter's last layer tuned to a picture: better pixels for the bytes, on every runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import aecodec
from aecodec import codec, container, decoding, moments, tuning
from aecodec.axes import matrix
from aecodec.cost import Cost
from aecodec.effort import LEVELS
from aecodec.errors import AecError, FormatError
from aecodec.model import Model, open_model
from aecodec.moments import Sample
from aecodec.picture import from_array
from aecodec.search import choose
from aecodec.transforms import OnnxNetworks
from aecodec.tuning import CLASSES, Change, Layer
from aecodec.watch import Clock
from aecodec.window import Window

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


def test_the_default_effort_tunes_at_high_qualities_only(photo: Pixels) -> None:
    assert container.read(aecodec.encode(photo, 84.99)).filter is None
    high = aecodec.encode(photo, 85)
    assert container.read(high).filter is not None
    assert error(high, photo) < error(without(high), photo)
    assert container.read(aecodec.encode(photo, 95, effort=2)).filter is None


def test_grey_pictures_are_not_tuned(photo: Pixels) -> None:
    assert container.read(aecodec.encode(photo[..., 0], 95, effort=4)).filter is None


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 90, 3), (90, 1, 3), (2, 2, 3), (3, 5, 3)])
def test_the_smallest_pictures_are_coded_as_well(shape: tuple[int, int, int]) -> None:
    pixels = RNG.integers(0, 256, shape).astype(np.uint8)
    assert aecodec.decode(aecodec.encode(pixels, 95, effort=4)).size == (shape[1], shape[0])


@pytest.mark.parametrize("effort", [3, 4])
def test_tiles_are_tuned_together_whatever_the_number_of_threads(
    effort: int, photo: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "TILE", 128)
    monkeypatch.setattr(codec, "SINGLE_TILE_PIXELS", 0)
    one, four = (aecodec.encode(photo, 95, threads=threads, effort=effort) for threads in (1, 4))
    assert one == four
    assert container.read(one).filter is not None
    assert error(one, photo) < error(without(one), photo)


def test_some_strips_stand_for_a_large_picture(model: Model, photo: Pixels) -> None:
    # As many rows as a strip has, again and again: all strips are alike.
    pixels = np.tile(photo[:128, : photo.shape[1] // 64 * 64], (24, 1, 1))
    u = model.networks.analysis(pixels, 9500)
    rows, columns = slice(0, u.shape[1]), slice(0, u.shape[2])
    window = Window(pixels, u, rows, columns, *pixels.shape[:2])
    coded = choose(model, window, 9500, False, LEVELS[2], Clock())
    sums = []
    for most in (2**19, pixels.size // 12 // 4):
        sample = tuning.sample_of(model, 9500, np.eye(3), pixels.size // 3, most, 1)
        moments.look(model, window, coded, 9500, sample)
        sums.append(sample.seen.diagonal())
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
        decoding.paint_tiles(decoding.model_of(each, file), file, 1).astype(int)
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
    """Squared error with changed weights, as a convolution has it, against the moments."""
    zero, unit = 11, np.linspace(0.001, 0.002, 12)
    seen = RNG.integers(0, 256, (40, 37, 4)).astype(np.uint8)
    error = np.rint(RNG.normal(0, 9, (40, 37, 12))).astype(np.float32)
    amount = RNG.integers(-2, 3, (12, 4, 3, 3))
    sample = Sample(4, zero, np.eye(3), 4 * 40 * 37, 2**19, threads=2)
    sample.add(seen, error)
    flat = amount.reshape(12, -1).T * unit
    less = 2 * (flat * sample.missing).sum() - (flat * (sample.seen @ flat)).sum()
    # Nothing beyond the picture: not seen, but added to, where nothing is missing.
    near = np.pad(seen.astype(float) - zero, ((2, 2), (2, 2), (0, 0)))
    added = np.zeros((42, 39, 12))
    for i in range(3):
        for j in range(3):
            added += near[i : i + 42, j : j + 39] @ amount[:, :, i, j].T
    around = np.pad(error.astype(float), ((1, 1), (1, 1), (0, 0)))
    found = (around**2 - (around - added * unit) ** 2).sum()
    assert less == pytest.approx(found, rel=1e-9)


def test_what_is_missing_is_turned_as_the_layer_sees_it() -> None:
    turn = matrix((30, -20, 9, 0, 0, 0))
    seen = RNG.integers(0, 256, (40, 30, 4)).astype(np.uint8)
    error = np.rint(RNG.normal(0, 9, (40, 30, 12))).astype(np.float32)
    turned = (error.reshape(40, 30, 4, 3) @ turn.T).reshape(40, 30, 12).astype(np.float32)
    one, other = (Sample(4, 11, axes, 4 * 40 * 30, 2**19) for axes in (turn, np.eye(3)))
    one.add(seen, error)
    other.add(seen, turned)
    assert np.allclose(one.missing, other.missing, rtol=1e-5, atol=1)


def test_moments_are_exact_whatever_the_order_and_the_threads() -> None:
    parts = [
        (RNG.integers(0, 256, (70, 40, 32)).astype(np.uint8),
         RNG.integers(-255, 256, (70, 40, 12)).astype(np.float32))
        for _ in range(3)
    ]  # fmt: skip
    sums = []
    for order, threads in (((0, 1, 2), 1), ((2, 0, 1), 3)):
        sample = Sample(32, 0, np.eye(3), 4 * 3 * 70 * 40, 2**19, threads)
        for index in order:
            sample.add(*parts[index])
        sums.append((sample.seen, sample.missing))
    assert np.array_equal(sums[0][0], sums[1][0])
    assert np.array_equal(sums[0][1], sums[1][1])
    exact = sum(int((seen.astype(np.int64)[..., 5] ** 2).sum()) for seen, _ in parts)
    assert sums[0][0][5 * 9 + 4, 5 * 9 + 4] == exact


def test_a_picture_that_needs_nothing_gets_no_chunk(model: Model) -> None:
    """Errors that have nothing to do with what the layer sees are left as they are."""
    layer = Layer.of(model, 3)
    sample = tuning.sample_of(model, 9500, np.eye(3), 4 * 256 * 256, 2**19, 1)
    seen = RNG.integers(layer.zero - 20, layer.zero + 21, (256, 256, 32)).astype(np.uint8)
    sample.add(seen, RNG.integers(-3, 4, (256, 256, 12)).astype(np.float32))
    assert tuning.chunk(model, 9500, sample) is None


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


def test_the_small_model_is_tuned_as_well(photo: Pixels) -> None:
    data = aecodec.encode(photo, 95, model="small")
    assert container.read(data).filter is not None
    assert error(data, photo) < error(without(data), photo)


def test_wrong_changes_are_refused(
    tuned: bytes, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = container.read(tuned)
    body = bytearray(any_change(model).packed(model))
    levels = len(model.y_tables.sizes)
    for wrong in (bytes([6]) + body[1:], body[:4] + bytes([levels]) + body[5:]):
        data = container.write(replace(file, filter=bytes(wrong)))
        with pytest.raises(FormatError, match="FILTER"):
            aecodec.decode(data)
    monkeypatch.setattr(OnnxNetworks, "can_tune", False)  # its last layer is not in 8 bits
    with pytest.raises(FormatError, match="another kind of model"):
        aecodec.decode(tuned)


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
