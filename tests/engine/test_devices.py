"""Names of devices."""

import pytest
import torch
from torch import nn

from robaudit.engine import device_of, devices_of, resolve_device, resolve_devices, spread
from robaudit.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


def named(text):
    return [str(device) for device in resolve_devices(text)]


def test_names_of_devices(two_gpus):
    assert named("auto") == named("cuda") == ["cuda"]
    assert named("cuda:1,cuda:0") == named("cuda:1, cuda") == ["cuda:1", "cuda:0"]
    assert named("cuda:all") == ["cuda:0", "cuda:1"]
    assert named("cpu,cpu,cpu") == ["cpu"] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cuda:0,cuda:2", "only 2 CUDA devices"),
        ("cuda:0,cuda", "cuda:0 is named twice"),
        ("cpu,cuda:0", "do not share"),
        ("cuda:0,", "unknown device ''"),
        ("auto,cuda:0", "unknown device 'auto'"),
        ("cuda:any", "unknown device 'cuda:any'"),
    ],
)
def test_wrong_names_of_devices(two_gpus, text, said):
    with pytest.raises(UsageError, match=said):
        resolve_devices(text)


def test_no_gpu_and_one_device():
    for text in ("cuda:all", "cuda:0,cuda:1"):
        with pytest.raises(UsageError, match="sees no CUDA device"):
            resolve_devices(text)
    assert resolve_device("cpu") == CPU
    with pytest.raises(UsageError, match="runs on one device"):
        resolve_device("cpu,cpu")


def test_a_spread_model_says_where_it_runs():
    model = nn.Linear(2, 2)
    assert devices_of(model) == (CPU,)
    inside = nn.Sequential(nn.ReLU(), spread(model, (CPU, CPU)))
    assert devices_of(inside) == (CPU, CPU)
    assert device_of(inside) == CPU
    model.to("meta")  # it was moved elsewhere
    assert devices_of(inside) == (torch.device("meta"),)
