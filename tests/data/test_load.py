"""Choosing examples: split, first n, seeded draws, hashes, refusals."""

import hashlib

import numpy as np
import pytest
import torch

from robaudit.data import deciding_examples, default_threat, load_examples
from robaudit.errors import DataError, UsageError
from robaudit.types import ThreatModel


def test_first_n_are_the_first_of_the_whole():
    whole, part = load_examples("digits"), load_examples("digits", n=7)
    assert torch.equal(part.x, whole.x[:7])
    assert torch.equal(part.y, whole.y[:7])
    assert part.index.tolist() == list(range(7))
    assert (part.name, part.split, part.classes) == ("digits", "test", 10)


def test_a_seeded_draw_is_sorted_repeatable_and_grows_with_n():
    small = load_examples("digits", n=40, sample_seed=3)
    again = load_examples("digits", n=40, sample_seed=3)
    large = load_examples("digits", n=200, sample_seed=3)
    other = load_examples("digits", n=40, sample_seed=4)
    drawn = small.index.tolist()
    assert drawn == sorted(set(drawn)) == again.index.tolist()
    assert set(drawn) < set(large.index.tolist())
    assert drawn != other.index.tolist()
    assert drawn != list(range(40))
    assert torch.equal(small.x, load_examples("digits").x[small.index])


def test_drawing_all_is_the_whole_set():
    assert load_examples("digits", sample_seed=1).sha256 == load_examples("digits").sha256


def test_hash_is_over_dtype_shape_and_bytes_of_images_and_labels():
    examples = load_examples("digits", n=5)
    digest = hashlib.sha256(b"torch.float32 (5, 1, 8, 8)\n")
    digest.update(examples.x.numpy().tobytes())
    digest.update(b"torch.int64 (5,)\n")
    digest.update(examples.y.numpy().tobytes())
    assert examples.sha256 == digest.hexdigest()
    assert examples.sha256 != load_examples("digits", n=4).sha256


def test_more_than_there_are_is_refused_with_the_number_there_is():
    with pytest.raises(DataError, match=r"500 examples, fewer than 501"):
        load_examples("digits", n=501)


@pytest.mark.parametrize("n", [0, -1])
def test_n_below_one_is_a_usage_error(n):
    with pytest.raises(UsageError, match="at least 1"):
        load_examples("digits", n=n)


def test_unknown_split_is_a_usage_error():
    with pytest.raises(UsageError, match="validation"):
        load_examples("digits", split="validation")


@pytest.mark.parametrize(("wrong", "near"), [("cifra10", "cifar10"), ("MNIST", "mnist")])
def test_unknown_name_suggests_the_nearest(wrong, near):
    with pytest.raises(UsageError) as caught:
        load_examples(wrong)
    assert f"did you mean {near!r}?" in caught.value.message
    assert "svhn" in (caught.value.advice or "")


def test_nothing_near_suggests_nothing():
    with pytest.raises(UsageError) as caught:
        load_examples("zzzz")
    assert "did you mean" not in str(caught.value)


def test_a_bare_folder_is_told_how_to_be_named(tmp_path):
    with pytest.raises(UsageError) as caught:
        load_examples(str(tmp_path))
    assert f"imagefolder:{tmp_path}" in (caught.value.advice or "")


@pytest.mark.parametrize(
    ("name", "eps"),
    [("digits", 0.15), ("mnist", 0.3), ("cifar10", 8 / 255), ("svhn", 8 / 255)],
)
def test_default_threat_is_the_published_linf_radius(name, eps):
    assert default_threat(name) == ThreatModel("linf", eps)


def test_no_default_threat_for_a_file():
    assert default_threat("some.npz") is None


def test_what_decides_is_the_same_whatever_is_audited(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (1500, 1, 4, 4), dtype=np.uint8)
    y = np.random.default_rng(1).integers(0, 10, 1500)
    np.savez(tmp_path / "set.npz", x=x, y=y)
    name = str(tmp_path / "set.npz")
    alone = deciding_examples(name)
    assert torch.equal(alone.index, torch.arange(1024))
    for said in ({"n": 8}, {"n": 1200}, {}, {"n": 1100, "sample_seed": 0}):
        found = deciding_examples(name, audited=load_examples(name, **said))
        assert torch.equal(found.index, alone.index)
        assert torch.equal(found.x[:], alone.x[:])


def test_of_a_set_sorted_by_class_all_classes_decide(tmp_path):
    x = np.zeros((5000, 1, 2, 2), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", x=x, y=np.arange(5000) // 500)
    name = str(tmp_path / "set.npz")
    for audited in (None, load_examples(name, n=2000)):
        found = deciding_examples(name, audited=audited)
        assert len(found) == 1024
        assert found.y.bincount().min() > 100
