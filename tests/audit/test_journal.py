"""Pieces of a run on disk: whole or absent, of this run or refused."""

import errno
import os

import pytest
import torch
from torch import nn

from robaudit.audit.journal import open_journal, weights_digest
from robaudit.errors import UsageError
from robaudit.types import no_cache

KEY = {"weights": "a" * 64, "seed": 0, "threat": {"norm": "linf", "eps": 0.1}}
PIECE = {"x": torch.rand(3, 2), "robust": torch.tensor([True, False, True])}


def never():
    raise AssertionError("it was there already")


def test_a_piece_is_computed_once(tmp_path):
    journal = open_journal(tmp_path / "state", KEY)
    assert journal.piece("pgd-0", lambda: dict(PIECE)).keys() == PIECE.keys()
    again = open_journal(tmp_path / "state", KEY)
    for key, value in again.piece("pgd-0", never).items():
        assert torch.equal(value, PIECE[key])
    assert no_cache("pgd-0", lambda: PIECE) is PIECE


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"seed": 1}, "seed 0 there, 1 here"), ({"weights": "b" * 64}, "weights aaaaaaaaaaaa..."),
     ({"threat": None}, "threat"), ({"more": 3}, "more null there, 3 here")],
)  # fmt: skip
def test_another_run_s_pieces_are_refused(tmp_path, changed, said):
    open_journal(tmp_path, KEY).piece("a", lambda: dict(PIECE))
    with pytest.raises(UsageError, match=f"another run: .*{said}"):
        open_journal(tmp_path, {**KEY, **changed})
    open_journal(tmp_path, KEY).piece("a", never)


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="other files"):
        open_journal(tmp_path, KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_drafts_that_a_killed_process_left_are_no_obstacle(tmp_path):
    (tmp_path / ".draft-x").write_bytes(b"half")
    open_journal(tmp_path, KEY)


def test_a_damaged_piece_is_computed_again(tmp_path):
    journal = open_journal(tmp_path, KEY)
    (tmp_path / "a.safetensors").write_bytes(b"\0" * 9)
    assert torch.equal(journal.piece("a", lambda: dict(PIECE))["x"], PIECE["x"])
    assert torch.equal(journal.piece("a", never)["x"], PIECE["x"])


def test_a_full_disk_is_said_and_loses_nothing(tmp_path, monkeypatch):
    journal = open_journal(tmp_path, KEY)
    journal.piece("a", lambda: dict(PIECE))

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match="No space left on device"):
        journal.piece("b", lambda: dict(PIECE))
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "journal.json"]
    journal.piece("a", never)


def test_the_digest_tells_weights_apart():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2).bfloat16())
    first = weights_digest(network)
    assert first == weights_digest(network)
    with torch.no_grad():
        network[1].running_mean[0] += 1e-6
    assert weights_digest(network) != first
