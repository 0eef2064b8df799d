"""The structural error that filters learn from, and a filter that learns from it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("compressai")
pytest.importorskip("lightning")

from synthetic import picture  # noqa: E402

from aecodec.training import synthesis  # noqa: E402
from aecodec.training.config import Config  # noqa: E402
from aecodec.training.model import Codec  # noqa: E402
from aecodec.training.pool import Pool  # noqa: E402
from aecodec.training.structure import structural_error  # noqa: E402

torch.set_num_threads(1)


def coloured(width: int, height: int) -> Image.Image:
    return Image.fromarray(picture("RGB", width, height).pixels)


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image, np.float32).copy()).permute(2, 0, 1)[None]


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality)
    return Image.open(file).convert("RGB")


def test_structural_error_is_what_ssimulacra2_lacks_to_100() -> None:
    metrics = pytest.importorskip("aecodec.bench.metrics")
    pytest.importorskip("ssimulacra2")
    image = coloured(384, 352)
    inner = (96, 96, 288, 256)  # beyond it nothing differs: the two treat edges in their own ways
    for quality in (90, 60, 30):
        other = image.copy()
        other.paste(as_jpeg(image.crop(inner), quality), inner[:2])
        found = 100 - float(structural_error(tensor(other), tensor(image)))
        assert found == pytest.approx(metrics.ssimulacra2(image, other), abs=0.5)


def test_structural_error_tells_samples_apart_and_nearly_vanishes_without_one() -> None:
    image = coloured(160, 128)
    parts = [tensor(image)] + [tensor(as_jpeg(image, quality)) for quality in (85, 40, 10)]
    found = structural_error(torch.cat(parts), tensor(image).expand(4, -1, -1, -1))
    assert found[0] < 3
    assert (found.diff() > 5).all()


def test_structural_error_has_a_slope_where_nothing_differs_and_beyond_white() -> None:
    x = tensor(coloured(128, 96))
    x_hat = (x + torch.tensor([0.0, 300.0, -300.0])[None, :, None, None]).requires_grad_()
    for start in (x_hat, x.clone().requires_grad_()):
        structural_error(start, x).sum().backward()
        assert torch.isfinite(start.grad).all()


def test_a_filter_learns_structure_beside_squared_error() -> None:
    """Sharp edges that were blurred: by equal steps it restores more of what is seen."""
    cfg = Config(
        enc_blocks8=0, enc_blocks16=0, dec_blocks8=0, dec_blocks16=0,
        M=32, Z=8, H=8, W=16, prior_blocks=1, F=8, filter_blocks=1,
    )  # fmt: skip
    x = torch.cat([tensor(coloured(128, 128)), tensor(coloured(128, 128)).flip(1)])
    near = torch.nn.functional.avg_pool2d(x, 3, 1, 1) - 128
    pool = Pool(near.half(), x.to(torch.uint8), torch.full((2,), 50.0))
    left = []
    for eye in (0.0, 4.0):
        torch.manual_seed(0)
        model = Codec(cfg)
        for name, p in model.named_parameters():
            p.requires_grad_(name.startswith("filter."))
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
        for _ in range(25):
            optimizer.zero_grad()
            synthesis.distortion(model, pool, eye).backward()
            optimizer.step()
        with torch.no_grad():
            x_hat = model.restore(near, pool.quality).float()
            left.append(float(structural_error(x_hat, x).mean()))
            assert float((x_hat - x).square().mean()) < float((near + 128 - x).square().mean())
    assert left[1] < left[0]
