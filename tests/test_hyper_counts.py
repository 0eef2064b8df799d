"""Tables of hyper-latents by their neighbours: counted on tiles, released, and reopened."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("compressai")
pytest.importorskip("lightning")
pytest.importorskip("onnx")

from aecodec.entropy import PRECISION, TableSet  # noqa: E402
from aecodec.hyper import HyperTables, hyper_tables  # noqa: E402
from aecodec.prior import Z_LIMIT  # noqa: E402
from aecodec.training import reopen  # noqa: E402
from aecodec.training.config import Config  # noqa: E402
from aecodec.training.hyper import VALUES, HyperCounts, count_hyper  # noqa: E402
from aecodec.training.model import Codec  # noqa: E402

torch.set_num_threads(1)  # such small layers only lose by sharing
BUCKETS, CHANNELS = 3, 5
LINEAR = Config(
    enc_blocks8=0, enc_blocks16=0, dec_blocks8=0, dec_blocks16=0,
    M=32, Z=8, H=8, W=16, prior_blocks=1, F=8, filter_blocks=1,
)  # fmt: skip


def smooth(seed: int, count: int) -> npt.NDArray[np.int32]:
    """Hyper-latents (N,6,7,Z) that look like what is beside them, some channels larger."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1, (count, 9, 10, CHANNELS))
    for _ in range(3):
        z = z[:, 1:, 1:] + z[:, :-1, 1:] + z[:, 1:, :-1] + z[:, :-1, :-1]
    return np.rint(z / 16 * np.linspace(0.3, 3, CHANNELS)).astype(np.int32)


def by_channel(latents: list[npt.NDArray[np.int32]]) -> HyperTables:
    """Tables as models without contexts have them, counted as well."""
    rows = []
    for z in latents:
        for channel in range(CHANNELS):
            counts = np.bincount(z[..., channel].ravel() + Z_LIMIT, minlength=VALUES) + 1e-3
            row = np.floor(counts / counts.sum() * ((1 << PRECISION) - VALUES)).astype(np.int64) + 1
            row[Z_LIMIT] += (1 << PRECISION) - row.sum()
            rows.append(row)
    sizes = np.full(len(rows), VALUES, np.int32)
    return HyperTables(TableSet(np.concatenate(rows).astype(np.uint32), sizes, False), CHANNELS)


def test_neighbours_save_bits() -> None:
    counts, latents = HyperCounts(BUCKETS, CHANNELS), [smooth(seed, 200) for seed in range(BUCKETS)]
    counts.fit(latents)
    found, plain = hyper_tables(counts.tables(), CHANNELS), by_channel(latents)
    assert (found.tables.frequencies.reshape(-1, VALUES).sum(1) == 1 << PRECISION).all()
    for bucket, quality in enumerate((0, 5000, 10000)):
        others = smooth(100 + bucket, 50)
        bits = [
            sum(each.bits(z.transpose(2, 0, 1), quality) for z in others) for each in (found, plain)
        ]
        assert bits[0] < 0.9 * bits[1]


def test_counts_are_released_and_reopened() -> None:
    model = Codec(LINEAR).eval()
    counts = model.hyper_counts
    assert not counts.tables()  # those by channel alone stay
    tiles = np.random.default_rng(1).integers(0, 256, (4, 512, 512, 3), np.uint8)
    count_hyper(model, tiles, [1], 2)
    released = {f"tables.{name}": array for name, array in counts.tables().items()}
    state = reopen.hyper_state(released)
    for name, array in state.items():
        assert np.array_equal(array, model.state_dict()[name].numpy()), name
    assert len(state) == 2
