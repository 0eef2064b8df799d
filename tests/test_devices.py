"""The choice of a device: names, the environment, and what is said when it is not there."""

from __future__ import annotations

import pytest

from aecodec import devices
from aecodec.errors import ModelError
from aecodec.model import open_model
from aecodec.transforms import OnnxNetworks


@pytest.fixture(autouse=True)
def nothing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without CUDA, whatever this one has."""
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "_torch_has_cuda", lambda: False)
    monkeypatch.setattr(devices, "_onnxruntime_has_cuda", lambda: False)


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.device_name() == "cpu"
    monkeypatch.setenv(devices.VARIABLE, "AUTO")
    assert devices.device_name() == "auto"
    assert devices.device_name("cuda") == "cuda"
    with pytest.raises(ModelError, match="tpu"):
        devices.device_name("tpu")


def test_cpu_and_auto_open_the_default_runtime() -> None:
    for device in ("cpu", "auto"):
        assert type(open_model(threads=1, device=device).networks) is OnnxNetworks


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="finds a CUDA device"):
        open_model(threads=1, device="cuda")
    monkeypatch.setenv(devices.VARIABLE, "cuda")
    with pytest.raises(ModelError, match="device cuda"):
        open_model(threads=1)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_without_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_onnxruntime_has_cuda", lambda: True)
    monkeypatch.setattr(
        OnnxNetworks, "open", lambda self, name: (_ for _ in ()).throw(ModelError("no device"))
    )
    with pytest.raises(ModelError, match="no device"):
        open_model(threads=2, device="cuda")
    assert type(open_model(threads=2, device="auto").networks) is OnnxNetworks
