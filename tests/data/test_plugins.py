"""Data sets registered by an installed package, found by their entry points."""

import sys

import pytest
import torch

from robaudit.data import load_examples
from robaudit.errors import DataError, UsageError

CODE = """
import numpy as np
import torch

LOADED = True
x = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)

def arrays(split, data_dir):
    return x, np.array([0, 1])

def tensors(split, data_dir):
    return torch.from_numpy(x).to(torch.bfloat16) / 128, torch.tensor([0, 1])

def by_split(split, data_dir):
    labels = np.full(2, ("test", "train").index(split))
    return x, labels + (0 if data_dir is None else int(data_dir.name))

def failing(split, data_dir):
    raise KeyError("no scans here")

def leaving(split, data_dir):
    raise SystemExit(0)

def nothing(split, data_dir):
    return None

def objects(split, data_dir):
    return np.array([object(), object()]), np.array([0, 1])

def bright(split, data_dir):
    return x.astype(np.float32), np.array([0, 1])
"""
NAMES = ("arrays", "tensors", "by_split", "failing", "leaving", "nothing", "objects", "bright")


@pytest.fixture(autouse=True)
def installed_package(tmp_path, monkeypatch):
    (tmp_path / "labsets.py").write_text(CODE)
    info = tmp_path / "labsets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: labsets\nVersion: 1.0\n")
    points = [f"lab-{name} = labsets:{name}" for name in NAMES]
    points += ["digits = labsets:failing", "lab-gone = labsets:gone", "lab-nowhere = nolab:x"]
    (info / "entry_points.txt").write_text("\n".join(["[robaudit.datasets]", *points]))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("labsets", None)


def test_arrays_become_examples():
    examples = load_examples("lab-arrays")
    expected = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).float() / 255
    assert torch.equal(examples.x, expected)
    assert examples.y.tolist() == [0, 1]
    assert (examples.name, examples.split, examples.classes) == ("lab-arrays", "test", None)


def test_tensors_of_any_precision_become_examples():
    examples = load_examples("lab-tensors", n=1)
    expected = torch.arange(48).reshape(1, 3, 4, 4).float() / 128
    assert torch.equal(examples.x, expected)


def test_the_split_and_the_folder_are_handed_over(tmp_path):
    assert load_examples("lab-by_split", split="train").y.tolist() == [1, 1]
    assert load_examples("lab-by_split", data_dir=tmp_path / "7").y.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lab-failing", "KeyError: 'no scans here'"),
        ("lab-leaving", "SystemExit"),
        ("lab-gone", "AttributeError"),
        ("lab-nowhere", "ModuleNotFoundError"),
        ("lab-nothing", "gave a NoneType, not images and labels"),
        ("lab-objects", "arrays of objects"),
        ("lab-bright", "not in \\[0, 1\\]"),
    ],
)
def test_what_goes_wrong_names_the_set(name, said):
    with pytest.raises(DataError, match=said) as caught:
        load_examples(name)
    assert name in caught.value.message
    assert caught.value.advice


def test_robaudits_own_names_come_first_and_load_no_package():
    assert len(load_examples("digits", n=3)) == 3
    assert "labsets" not in sys.modules


def test_registered_names_are_suggested_without_loading_them():
    with pytest.raises(UsageError) as caught:
        load_examples("lab-array")
    assert "did you mean 'lab-arrays'?" in caught.value.message
    assert "labsets" not in sys.modules
