"""Weights that are stored in parts are those that the network computes with; quantised ones are
named. Held against torch's own pruning and parametrisations.
"""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from robaudit.checkpoints import load, read_state_dict
from robaudit.checkpoints.effective import compute, parts
from robaudit.checkpoints.inspection import inspect_file
from robaudit.errors import CheckpointError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2048, 10))


def prune_both(net):
    prune.l1_unstructured(net[0], "weight", 0.5)
    prune.random_unstructured(net[3], "bias", 0.3)


def with_weight_norm(net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight_norm(net[0])
        weight_norm(net[3], dim=None)


def with_parametrized_weight_norm(net):
    parametrizations.weight_norm(net[0])
    parametrizations.weight_norm(net[3], dim=1)


def train_a_little(net):
    for _ in range(3):
        net(torch.rand(2, 3, 32, 32))


MADE = {
    "pruned": (prune_both, "masked"),
    "weight norm": (with_weight_norm, "weight norm"),
    "weight norm, parametrized": (with_parametrized_weight_norm, "weight norm"),
    "spectral norm": (lambda net: [spectral_norm(net[0]), spectral_norm(net[3])], "spectral"),
    "spectral norm, parametrized": (
        lambda net: [parametrizations.spectral_norm(net[i]) for i in (0, 3)],
        "spectral",
    ),
}


def saved(path, name):
    net = network()
    MADE[name][0](net)
    train_a_little(net)
    torch.save(net.eval().state_dict(), path)
    return net


@pytest.mark.parametrize("name", MADE)
def test_the_plain_network_computes_the_same(tmp_path, name):
    net = saved(tmp_path / "ckpt.pt", name)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Flatten(), "
        "nn.Linear(2048, 10))\n"
    )
    found = load(tmp_path / "ckpt.pt", arch=f"{tmp_path}/net.py:net", normalize="none")
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-5, atol=1e-6)
    assert any(MADE[name][1] in text for text in found.origin.warnings)
    # Its keys are those of a known network, once its weights are whole.
    assert (inspect_file(tmp_path / "ckpt.pt").architecture or "").startswith("sequential_cnn")


def test_a_factory_that_prunes_keeps_its_parts(tmp_path):
    net = saved(tmp_path / "ckpt.pt", "pruned")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "from torch.nn.utils import prune\n"
        "def net():\n"
        "    net = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Flatten(), "
        "nn.Linear(2048, 10))\n"
        "    prune.identity(net[0], 'weight')\n"
        "    prune.identity(net[3], 'bias')\n"
        "    return net\n"
    )
    found = load(tmp_path / "ckpt.pt", arch=f"{tmp_path}/net.py:net", normalize="none")
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(found(x), net(x), rtol=1e-5, atol=1e-6)


def test_a_transposed_convolutions_spectral_norm():
    layer = spectral_norm(nn.ConvTranspose2d(3, 5, 3))
    layer(torch.rand(2, 3, 8, 8))
    layer.eval()(torch.rand(1, 3, 8, 8))
    state = layer.state_dict()
    (part,) = parts({key: tuple(value.shape) for key, value in state.items()})
    torch.testing.assert_close(compute(state, part), layer.weight.detach(), rtol=1e-5, atol=1e-6)


def test_keys_that_only_look_like_parts_stay():
    assert parts({"a.weight_orig": (2, 3), "b.weight_mask": (2, 3)}) == ()
    assert parts({"conv_g": (2,), "fc.weight": (2, 3)}) == ()
    assert parts({"a.parametrizations.weight.original": (2, 2), "a.parametrizations.weight.0.base":
                  (2, 2)}) == ()  # fmt: skip


def files():
    plain = network().state_dict()
    whole = {k: (v * 50).to(torch.int8) if v.ndim > 1 else v for k, v in plain.items()}
    rest = {"0.weight": plain["0.weight"], "0.bias": plain["0.bias"]}
    yield "int8", whole
    yield "int8", {**whole, "3.weight_scale": torch.ones(())}
    yield "GPTQ", {
        **rest, "3.qweight": torch.zeros(256, 10, dtype=torch.int32), "3.scales": torch.rand(2, 10),
        "3.qzeros": torch.zeros(2, 2, dtype=torch.int32),
    }  # fmt: skip
    eight = torch.zeros(10, 2048, dtype=torch.int8)
    yield "bitsandbytes", {**rest, "3.weight": eight, "3.SCB": torch.ones(10)}
    four = torch.zeros(10240, 1, dtype=torch.uint8)
    yield "bitsandbytes", {**rest, "3.weight": four, "3.weight.absmax": torch.ones(320)}
    q = torch.quantize_per_tensor(plain["3.weight"], 0.1, 0, torch.qint8)
    yield "quantised", {**rest, "3.weight": q}
    yield "torch.ao", {
        **rest, "3.scale": torch.tensor(0.1), "3.zero_point": torch.tensor(0),
        "3._packed_params.dtype": torch.qint8, "3._packed_params._packed_params": (q, None),
    }  # fmt: skip


@pytest.mark.parametrize("at", range(7))
def test_quantised_weights_are_named_with_what_to_do(tmp_path, at):
    kind, state = list(files())[at]
    torch.save(state, tmp_path / "ckpt.pt")
    with pytest.raises(CheckpointError, match="quantised") as caught:
        load(tmp_path / "ckpt.pt")
    assert caught.value.exit_code == 4
    assert kind in caught.value.message
    assert "float" in caught.value.advice
    assert "dequantize" in caught.value.advice


def test_what_the_advice_says_works(tmp_path):
    plain = network()
    state = {
        key: torch.quantize_per_tensor(value, 0.01, 0, torch.qint8) if value.ndim > 1 else value
        for key, value in plain.state_dict().items()
    }
    torch.save(state, tmp_path / "q.pt")
    back = {k: v.dequantize() if v.is_quantized else v for k, v in state.items()}
    plain.load_state_dict(back)
    torch.save(plain.state_dict(), tmp_path / "float.pt")
    found = read_state_dict(tmp_path / "float.pt")
    assert set(found.state_dict) == set(state)
