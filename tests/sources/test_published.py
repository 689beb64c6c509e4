"""What is known of RobustBench's figures beyond its package, held against the package."""

from importlib.util import find_spec

import pytest

from robaudit.checkpoints.sources import published as facts
from robaudit.checkpoints.sources.catalogue import catalogue, find_entry
from robaudit.checkpoints.sources.published import published

pytestmark = pytest.mark.skipif(find_spec("robustbench") is None, reason="no robustbench here")


def test_autoattacks_figure_stands_above_that_of_a_stronger_attack():
    """The leaderboard's is the lower of the two wherever both are known."""
    for name in facts._AUTOATTACK:
        found = published(find_entry(name))
        assert 0 < found["autoattack_acc"] - found["robust_acc"] < 0.08, name
        assert ("unreliable" in found) == (name in facts._UNRELIABLE)
    assert facts._AUTOATTACK.keys() >= facts._UNRELIABLE


def test_other_networks_have_the_one_figure():
    named = {f"robustbench:{name}" for name in facts._AUTOATTACK}
    others = [entry for entry in catalogue() if entry.text not in named]
    assert others
    assert not any({"autoattack_acc", "unreliable"} & published(entry).keys() for entry in others)


def test_a_later_leaderboard_that_has_autoattacks_figure_is_believed(monkeypatch):
    monkeypatch.setattr(facts, "_AUTOATTACK", {"cifar10/Linf/Carmon2019Unlabeled": 59.53})
    found = published(find_entry("cifar10/Linf/Carmon2019Unlabeled"))
    assert found["robust_acc"] == 0.5953
    assert "autoattack_acc" not in found
