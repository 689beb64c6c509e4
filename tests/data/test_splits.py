"""Which examples an audit gets: every combination of the options, on the digits and on files."""

import numpy as np
import pytest

from robaudit.data import load_examples, load_splits
from robaudit.errors import DataError


@pytest.fixture
def file(tmp_path):
    """Three examples without splits."""
    path = tmp_path / "some.npz"
    x = np.linspace(0, 1, 3 * 64, dtype=np.float32).reshape(3, 1, 8, 8)
    np.savez(path, x=x, y=np.arange(3))
    return str(path)


def test_both_splits_are_chosen_in_the_same_way():
    audited, train = load_splits("digits", "test", gap=True, n=5, sample_seed=3)
    assert audited.sha256 == load_examples("digits", split="test", n=5, sample_seed=3).sha256
    assert train.sha256 == load_examples("digits", split="train", n=5, sample_seed=3).sha256


@pytest.mark.parametrize(("split", "gap"), [("test", False), ("train", True), ("train", False)])
def test_without_a_gap_there_are_no_training_examples(split, gap):
    audited, train = load_splits("digits", split, gap=gap, n=5)
    assert (audited.split, train) == (split, None)


def test_data_without_a_training_split_has_no_gap_and_says_so(file):
    said = []
    audited, train = load_splits(file, "test", gap=True, without=said.append)
    assert (len(audited), train) == (3, None)
    assert [type(error) for error in said] == [DataError]


def test_training_data_may_be_a_file(file):
    _, train = load_splits("digits", "test", gap=False, train_data=file, at_most=5)
    assert (train.split, len(train)) == ("train", 3)
    _, train = load_splits(file, "test", gap=False, train_data="digits", at_most=5)
    assert (train.split, len(train)) == ("train", 5)
