"""A pickle is run only where its hash vouches for it, and only where it has to be."""

import hashlib

import pytest
import torch
from torch import nn

from robaudit.checkpoints import read_state_dict
from robaudit.errors import CheckpointError, UsageError


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def live(tmp_path):
    """A file whose weights can be read only by running it, its hash, and what running it leaves."""
    path, canary = tmp_path / "live.pt", tmp_path / "canary"
    torch.save({"state_dict": {"w": torch.ones(2, 2)}, "file": Canary(canary)}, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest(), canary


def test_the_hash_alone_runs_nothing(live):
    path, sha256, canary = live
    with pytest.raises(CheckpointError, match="could run code"):
        read_state_dict(path, sha256=sha256)
    assert not canary.exists()


def test_trust_alone_is_refused_before_the_file_is_opened(live, tmp_path):
    path, _, canary = live
    for place in (path, tmp_path / "absent.pt"):
        with pytest.raises(UsageError, match="takes sha256=") as caught:
            read_state_dict(place, trust_pickle=True)
        assert "robaudit inspect --hash" in caught.value.advice
    assert not canary.exists()


def test_another_hash_is_an_error_that_shows_both(live):
    path, sha256, canary = live
    other = "0" * 64
    with pytest.raises(CheckpointError, match=f"{sha256}, not {other}"):
        read_state_dict(path, sha256=other, trust_pickle=True)
    assert not canary.exists()


def test_the_hash_is_compared_before_anything_is_parsed(tmp_path):
    path = tmp_path / "rubbish.pt"
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(CheckpointError, match="has the SHA-256"):
        read_state_dict(path, sha256="0" * 64)


@pytest.mark.parametrize("bad", ["", "abc", "g" * 64, "0" * 63])
def test_what_is_no_hash(live, bad):
    with pytest.raises(UsageError, match="64 hexadecimal"):
        read_state_dict(live[0], sha256=bad)


@pytest.mark.parametrize("spelled", [str.upper, "sha256:{}".format, " {} ".format])
def test_both_run_it(live, spelled):
    path, sha256, canary = live
    weights = read_state_dict(path, sha256=spelled(sha256), trust_pickle=True)
    assert canary.exists()
    assert weights.state_dict["w"].tolist() == [[1, 1], [1, 1]]
    assert weights.sha256 == sha256
    assert any("was run" in remark for remark in weights.remarks)


def test_what_can_be_read_without_running_it_is_not_run(tmp_path, monkeypatch):
    path = tmp_path / "plain.pt"
    torch.save(nn.Linear(2, 2), path)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was run"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    weights = read_state_dict(path, sha256=sha256, trust_pickle=True)
    assert weights.module is None
    assert "weight" in weights.state_dict


class Hidden(nn.Module):
    """Its pickle does not show its weights."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2)

    def __reduce__(self):
        return rebuilt, (self.net.weight.tolist(), self.net.bias.tolist())


def rebuilt(weight, bias):
    made = Hidden()
    made.net.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return made


@pytest.mark.parametrize("under", ["", "model"])
def test_a_whole_network_comes_as_itself(tmp_path, under):
    network = Hidden()
    path = tmp_path / "net.pt"
    torch.save({under: network} if under else network, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    weights = read_state_dict(path, sha256=sha256, trust_pickle=True)
    assert isinstance(weights.module, Hidden)
    assert weights.member == under
    expected = network.state_dict()
    assert weights.state_dict.keys() == expected.keys()
    assert all(torch.equal(weights.state_dict[key], expected[key]) for key in expected)


def test_a_trusted_file_that_cannot_be_run_here(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(Hidden(), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes().replace(b"rebuilt", b"missing")
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    with pytest.raises(CheckpointError, match="running the file failed: AttributeError") as caught:
        read_state_dict(path, sha256=sha256, trust_pickle=True)
    assert "PYTHONPATH" in caught.value.advice
