"""The exact probability model: integer tables, the walk through the steps, and the bounds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from exactness import oracle

from aecodec.model import open_model
from aecodec.prior import (
    ACTIVATION_MAX,
    ACTIVATION_MIN,
    MAX_QUALITY,
    MEAN_UNITS,
    PICTURE_MIN,
    QUALITY_STEP,
    STEP_PHASES,
    STEPS,
    UNITS,
    Index,
    Prior,
    PriorTables,
    Walk,
    interpolate,
    with_means,
)

Float = npt.NDArray[np.float32]


class Recorder:
    """Networks that note what they are asked and answer with a fixed mean and index."""

    def __init__(self, m: int, w: int, mean: int, index: int) -> None:
        self.m, self.w, self.mean, self.index = m, w, mean, index
        self.contexts: list[Float] = []
        self.predicted: list[tuple[int, float]] = []

    def hyper_synthesis(self, z: Float) -> Float:
        return np.zeros((1, self.w, z.shape[2] * 4, z.shape[3] * 4), np.float32)

    def prior(self, step: int, context: Float, common: Float) -> tuple[Float, Float]:
        self.contexts.append(context.copy())
        shape = (4, self.m // 4, context.shape[2] * context.shape[3] // 4)
        return np.full(shape, self.mean, np.float32), np.full(shape, self.index, np.float32)

    def predictor(
        self, step: int, latent: Float, mean: Float, offset: npt.NDArray[np.int32]
    ) -> Float:
        self.predicted.append((step, float(offset[0])))
        assert np.array_equal(latent, with_means(step, self.contexts[-1], mean))
        return mean + 16


def tables(m: int, w: int, offsets: dict[int, npt.NDArray[np.int64]] | None = None) -> PriorTables:
    """One 1/256 of u is one 1/16 step at every quality; the index is shifted by 2.5."""
    rows = (MAX_QUALITY // QUALITY_STEP) + 1
    return PriorTables(
        gain=np.full((rows, m), 2**20, np.int64),
        inverse=np.full((rows, m), 2**16, np.int64),
        shift=np.full((rows, m), 5 * UNITS // 2, np.int64),
        vector=np.zeros((rows, w), np.int64),
        luma=np.arange(m) < m // 2,
        levels=64,
        offsets=offsets or {},
    )


@pytest.mark.parametrize("grey", [False, True])
def test_every_element_is_coded_once(grey: bool) -> None:
    m, h, w = 12, 8, 4
    channels = np.array([0, 1, 2, 5, 7, 11]) if grey else None
    walk, ids = Walk(channels), np.arange(m * h * w).reshape(m, h, w)
    coded = np.concatenate([walk.gather(step, ids) for step in range(STEPS)])
    kept = ids if channels is None else ids[channels]
    assert np.array_equal(np.sort(coded), np.sort(kept.ravel()))
    back = np.full_like(ids, -1)
    for step in range(STEPS):
        walk.scatter(step, back, walk.gather(step, ids))
        channel = walk.gather(step, ids) // (h * w)
        assert np.array_equal(walk.per_element(step, np.arange(m), h, w), channel)
    assert np.array_equal(back >= 0, np.isin(ids, kept))
    assert np.array_equal(back[back >= 0], ids[back >= 0])


def test_order_of_the_elements() -> None:
    """Quarter by quarter, then channel, row, column; as docs/format.md says."""
    m, h, w = 8, 4, 4
    for step in range(STEPS):
        expected = [
            (c, i, j)
            for quarter in range(4)
            for c in range(quarter, m, 4)
            for i in range(STEP_PHASES[step][quarter] // 2, h, 2)
            for j in range(STEP_PHASES[step][quarter] % 2, w, 2)
        ]
        ids = np.arange(m * h * w).reshape(m, h, w)
        assert Walk(None).gather(step, ids).tolist() == [ids[at] for at in expected]


@pytest.mark.parametrize("step", range(4))
def test_a_predictor_sees_means_where_the_step_codes(step: int) -> None:
    rng = np.random.default_rng(step)
    context = rng.integers(-1024, 1024, (1, 12, 4, 6)).astype(np.float32)
    mean = rng.integers(-5000, 5000, (4, 2, 6)).astype(np.float32)
    expected = context[0, :8].astype(np.int64)
    for quarter, phase in enumerate(STEP_PHASES[step]):
        part = expected[quarter::4, phase // 2 :: 2, phase % 2 :: 2]
        whole = (mean[quarter].astype(np.int64) + 2) >> 2  # of 1/256 to 1/64, half up
        part[...] = np.clip(whole, ACTIVATION_MIN, ACTIVATION_MAX).reshape(part.shape)
    before = context.copy()
    assert np.array_equal(with_means(step, context, mean)[0], expected)
    assert np.array_equal(context, before)


def test_interpolation_in_integers() -> None:
    table = np.array([[0, 10], [100, 11], [7, -11]], np.int64)
    assert interpolate(table, 0).tolist() == [0, 10]
    assert interpolate(table, QUALITY_STEP).tolist() == [100, 11]
    assert interpolate(table, 2 * QUALITY_STEP).tolist() == [7, -11]
    assert interpolate(table, 1).tolist() == [1, 10]  # 0.5 goes up
    assert interpolate(table, 300).tolist() == [54, 0]  # 53.5 and 0


@pytest.mark.parametrize(("raw", "index"), [(-(10**6), 0), (0, 3), (31, 3), (-33, 2), (10**6, 63)])
def test_index_is_rounded_half_up_and_clipped(raw: int, index: int) -> None:
    found: list[int] = []

    def exchange(step: int, mean: npt.NDArray[np.int64], at: Index) -> npt.NDArray[np.int32]:
        found.extend(np.unique(at).tolist())
        return np.zeros(len(at), np.int32)

    prior = Prior(tables(8, 4), Recorder(8, 4, 0, raw), 1234, False)
    prior.run(prior.opening(np.zeros((2, 1, 1), np.int32)), exchange)
    assert set(found) == {index}


def test_context_holds_what_was_decoded_clipped() -> None:
    m, networks = 8, Recorder(8, 4, 5, 0)

    def exchange(step: int, mean: npt.NDArray[np.int64], at: Index) -> npt.NDArray[np.int32]:
        assert np.all(mean == 5)
        return np.full(len(at), (3, -500, 500, 0)[step], np.int32)

    prior = Prior(tables(m, 4), networks, 0, False)
    y_hat = prior.run(prior.opening(np.zeros((2, 1, 1), np.int32)), exchange)
    values = [3 * MEAN_UNITS + 5, ACTIVATION_MIN, ACTIVATION_MAX]
    for step, context in enumerate(networks.contexts):
        known = context[0, :m]
        assert np.unique(known).tolist() == sorted({0, *values[:step]} if step else {0})
        assert (known != 0).mean() == step / 4
        assert context[0, m:].sum(0).tolist() == np.full((4, 4), UNITS).tolist()
    assert np.unique(y_hat).tolist() == [-500 * 16 + 5, 5, 3 * 16 + 5, 500 * 16 + 5]


def test_one_opening_serves_every_walk() -> None:
    """An encoder that chooses twice on one z asks the networks for the first step once."""
    networks = Recorder(8, 4, 5, 0)
    prior = Prior(tables(8, 4), networks, 0, False)
    opening = prior.opening(np.ones((2, 1, 1), np.int32))
    walks = [
        prior.run(opening, lambda step, mean, at: np.full(len(at), step, np.int32))
        for _ in range(2)
    ]
    assert np.array_equal(*walks)
    assert len(networks.contexts) == 1 + 2 * 3
    again = prior.run(
        prior.opening(opening.z), lambda step, mean, at: np.full(len(at), step, np.int32)
    )
    assert np.array_equal(again, walks[0])


def test_sums_of_the_default_model_are_in_bounds() -> None:
    """Every partial sum of every exact layer stays below 2^24, and shifts are whole."""
    tensors, layers = oracle()._oracle.tensors, 0
    for name in (n.removesuffix(".multiplier") for n in tensors if n.endswith(".multiplier")):
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        rows = weight.reshape(len(weight), -1).astype(np.int64)
        largest = -PICTURE_MIN if name.endswith(".back") else -ACTIVATION_MIN
        worst = np.abs(rows).sum(-1) * largest + np.abs(bias)
        assert worst.max() < 2**24
        assert weight.dtype == np.int16
        assert np.array_equal(bias, np.rint(bias))
        mantissa, _ = np.frexp(tensors[f"{name}.multiplier"])
        assert np.all(mantissa == 0.5)
        layers += 1
    assert layers >= 15


def test_eight_bit_layers_of_the_default_model_are_in_bounds() -> None:
    """Weights of 7 bits, sums below 2^24, and every scale a power of two: so rounding is exact."""
    tensors, layers = oracle()._oracle.tensors, 0
    for name in (n.removesuffix(".weight_scale") for n in tensors if n.endswith(".weight_scale")):
        if name.startswith("filter."):
            continue  # the filter's sums may round differently: they give pixels, not symbols
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        scale = tensors[f"{name}.weight_scale"]
        rows = weight.reshape(*scale.shape, -1).astype(np.int64)
        assert np.abs(rows).max() <= 63
        worst = np.abs(rows).sum(-1) * 255 + np.abs(bias.astype(np.int64))
        if name.endswith(".first"):  # of a predictor, which adds a row of its quality
            worst += np.abs(tensors[f"tables.{name[:-6].replace('.', '_')}"]).max()
        assert worst.max() < 2**24
        assert np.all(np.frexp(scale)[0] == 0.5)
        layers += 1
    assert layers >= 11
    points = tensors["prior.points"]
    assert np.all(np.frexp(points)[0] == 0.5)
    stream = [1] + [at + k for at in range(2, len(points), 7) for k in (2, 3, 5, 6)]
    assert len({float(points[i]) for i in stream}) == 1  # residual sums add without rounding
    # What the last layers read are whole numbers of their 1/64, within their bound.
    assert points[-1] * 64 >= 1
    assert points[-1] * 128 <= 16


def test_quality_tables_of_the_default_model() -> None:
    prior = open_model(threads=1).prior
    for table in (prior.gain, prior.inverse, prior.shift, prior.vector, *prior.offsets.values()):
        assert len(table) == MAX_QUALITY // QUALITY_STEP + 1
    assert prior.gain.min() > 0
    assert prior.inverse.min() > 0
    assert prior.levels == 57  # of 64: nothing is coded at the lowest ones


def spoil_bias(conv: object) -> None:
    conv.bias.data.fill_(1e9)  # type: ignore[attr-defined]


def spoil_weight(conv: object) -> None:
    conv.weight.data.fill_(1e5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("spoil", [spoil_bias, spoil_weight])
def test_export_refuses_a_layer_out_of_bounds(spoil: Callable[[object], None]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("compressai")
    from aecodec.training.export import exact_tensors
    from aecodec.training.layers import Pointwise

    conv = Pointwise(192, 8)
    exact_tensors(conv, 64)
    spoil(conv)
    with pytest.raises(ValueError, match="out of bounds"):
        exact_tensors(conv, 64)


def test_the_predictor_improves_the_means_of_its_steps() -> None:
    """With the row of its quality, and the symbols are coded around what it says."""
    rows = np.arange(MAX_QUALITY // QUALITY_STEP + 1)[:, None] * np.ones((1, 3), np.int64)
    networks, means = Recorder(8, 4, mean=32, index=0), []
    prior = Prior(tables(8, 4, {1: rows, 3: rows}), networks, 5000, grey=False)

    def exchange(step: int, mean: npt.NDArray[np.int64], index: Index) -> npt.NDArray[np.int32]:
        means.append(set(mean.tolist()))
        return np.zeros(len(mean), np.int32)

    prior.run(prior.opening(np.zeros((2, 1, 1), np.int32)), exchange)
    assert networks.predicted == [(1, 25.0), (3, 25.0)]
    assert means == [{32}, {48}, {32}, {48}]
