"""The plain values beside the weights are the ones Python's own unpickler gives."""

import argparse
import datetime
import fractions
import pathlib
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal

import numpy as np
import pytest
import torch

from robaudit.checkpoints import read_container, read_state_dict

W = {"conv.weight": torch.ones(2, 2)}


def metadata(tmp_path, **beside):
    torch.save({"state_dict": W, **beside}, tmp_path / "w.pt")
    container = read_container(tmp_path / "w.pt")
    assert all(finding.severity == "harmless" for finding in container.findings)
    assert container.refusal is None
    assert read_state_dict(tmp_path / "w.pt").remarks == ()
    return container.metadata


@pytest.mark.parametrize(
    "value",
    [
        np.float64(93.25),
        np.float32(0.1),
        np.float16(0.5),
        np.int64(-7),
        np.uint8(200),
        np.bool_(True),
        np.float64(93.25).newbyteorder(">") if hasattr(np.float64, "newbyteorder") else 1.0,
        torch.tensor(93.25),
        torch.tensor(7),
        torch.tensor(0.5, dtype=torch.float64),
        torch.tensor(True),
    ],
)
def test_numbers(tmp_path, value):
    expected = value.item() if hasattr(value, "item") else value
    assert metadata(tmp_path, acc=value) == {"acc": str(expected)}


def test_settings_are_shown_with_where_they_are(tmp_path):
    args = argparse.Namespace(lr=0.1, arch="resnet", depth=np.int64(3), layers=[1, 2])
    found = metadata(tmp_path, args=args, config={"seed": 1}, epoch=5)
    assert found == {
        "args.lr": "0.1",
        "args.arch": "resnet",
        "args.depth": "3",
        "config.seed": "1",
        "epoch": "5",
    }


@pytest.mark.parametrize(
    "value",
    [
        np.arange(4.0),
        np.dtype("float32"),
        OrderedDict(a=1),
        defaultdict(list, {"a": [1]}),
        Counter("abc"),
        deque([1, 2], maxlen=5),
        pathlib.Path("/data"),
        pathlib.PureWindowsPath("c:/x"),
        datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        datetime.timedelta(1),
        Decimal("1.5"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=5),
        {1, 2},
        frozenset({"a"}),
        b"bytes",
        bytearray(b"bytes"),
        1 + 2j,
        slice(1, 2),
        range(3),
        torch.float32,
        torch.Size([1, 2]),
        torch.device("cuda:0"),
        dict,
    ],
    ids=repr,
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_training_scripts_store_does_no_harm(tmp_path, value, protocol):
    torch.save({"state_dict": W, "extra": value}, tmp_path / "w.pt", pickle_protocol=protocol)
    weights = read_state_dict(tmp_path / "w.pt")
    assert torch.equal(weights.state_dict["conv.weight"], W["conv.weight"])
    assert weights.remarks == ()


def test_counters_of_the_network_are_no_metadata(tmp_path):
    torch.save(torch.nn.BatchNorm1d(2).state_dict(), tmp_path / "w.pt")
    assert read_container(tmp_path / "w.pt").metadata == {}


def test_a_lightning_checkpoint_is_known(tmp_path):
    content = {
        "pytorch-lightning_version": "2.0",
        "state_dict": {f"model.{key}": value for key, value in W.items()},
        "hyper_parameters": {"lr": 0.1},
        "callbacks": {"EMA": {"state_dict": W}},
        "optimizer_states": [{"state": W}],
        "loops": {"fit_loop": {"state_dict": {}}},
    }
    torch.save(content, tmp_path / "w.ckpt")
    weights = read_state_dict(tmp_path / "w.ckpt")
    assert (weights.member, weights.remarks) == ("state_dict", ())
    assert weights.note == "a Lightning checkpoint"
    assert weights.metadata["hyper_parameters.lr"] == "0.1"
