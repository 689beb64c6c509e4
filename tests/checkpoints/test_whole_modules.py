"""Whole pickled networks: the state dict torch would give, and nothing of them run."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from robaudit.checkpoints import read_container, read_state_dict
from robaudit.errors import CheckpointError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.shared = self.blocks[0]
        self.missing = None
        self.plain = torch.ones(3)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("dropped", torch.ones(2), persistent=False)
        self.register_buffer("empty", None)
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.tied = self.scale


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    "make",
    [
        Net,
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2)),
        lambda: nn.DataParallel(Net()),
        lambda: nn.TransformerEncoderLayer(8, 2, 16),
        lambda: weight_norm(nn.Linear(2, 2)).parametrizations,
        lambda: nn.LSTM(2, 3),
        lambda: torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2)),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_state_dict_is_the_one_torch_gives(tmp_path, make, zipped):
    network = make()
    torch.save(network, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    weights = read_state_dict(tmp_path / "net.pt")
    same(weights.state_dict, network.state_dict())
    assert "a whole module" in weights.note
    assert any("without running it" in remark for remark in weights.remarks)


def test_a_network_beside_its_optimizer(tmp_path):
    network = Net()
    optimizer = torch.optim.Adam(network.parameters())
    content = {"epoch": 3, "model": network, "optimizer": optimizer, "ema": network.state_dict()}
    torch.save(content, tmp_path / "all.pt")
    weights = read_state_dict(tmp_path / "all.pt")
    assert weights.member == "model"
    same(weights.state_dict, network.state_dict())
    assert weights.metadata == {"epoch": "3"}


class Trainer:
    """A class that only its own training code knows."""


def test_objects_beside_a_plain_state_dict_are_left_out_and_named(tmp_path):
    state = nn.Linear(2, 2).state_dict()
    torch.save({"state_dict": state, "trainer": Trainer()}, tmp_path / "w.pt")
    weights = read_state_dict(tmp_path / "w.pt")
    same(weights.state_dict, state)
    (remark,) = weights.remarks
    assert "left out" in remark
    assert "Trainer" in remark


def test_weights_inside_an_object_are_refused(tmp_path):
    trainer = Trainer()
    trainer.weights = nn.Linear(2, 2).state_dict()
    torch.save(trainer, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"asks for .*Trainer") as caught:
        read_state_dict(tmp_path / "w.pt")
    assert "--trust-pickle" in caught.value.advice
    assert read_container(tmp_path / "w.pt").refusal is not None


class Odd(nn.Module):
    """Its state is not the one modules have."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def __getstate__(self):
        return {"weights": self.weight}


def test_a_module_with_a_state_of_its_own_is_refused(tmp_path):
    torch.save(nn.Sequential(Odd()), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="no module") as caught:
        read_state_dict(tmp_path / "w.pt")
    assert "--trust-pickle" in caught.value.advice
