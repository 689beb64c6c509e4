"""The bundled digits are the published ones, all of them, split once."""

import numpy as np
import pytest
import torch

from robaudit.data import load_examples


@pytest.mark.parametrize(("split", "count"), [("train", 1297), ("test", 500)])
def test_shape_type_and_range(split, count):
    examples = load_examples("digits", split=split)
    assert examples.x.shape == (count, 1, 8, 8)
    assert examples.x.dtype == torch.float32
    assert examples.y.dtype == torch.int64
    assert (examples.x.min(), examples.x.max()) == (0, 1)
    # A sixteenth is exact in binary: every pixel is a whole number of them.
    assert torch.equal((examples.x * 16).round(), examples.x * 16)
    assert set(examples.y.tolist()) == set(range(10))


def test_both_splits_together_are_scikit_learns_digits():
    sklearn = pytest.importorskip("sklearn.datasets")
    theirs = sklearn.load_digits()
    rows = []
    for split in ("train", "test"):
        examples = load_examples("digits", split=split)
        pixels = (examples.x * 16).to(torch.uint8).flatten(1).numpy()
        rows.append(np.column_stack([pixels, examples.y.numpy().astype(np.uint8)]))
    ours = np.concatenate(rows)
    reference = np.column_stack([theirs.data, theirs.target]).astype(np.uint8)
    assert sorted(map(bytes, ours)) == sorted(map(bytes, reference))
