"""npz and safetensors files: what is read, and one clear refusal per kind of bad file."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from robaudit.data import load_examples
from robaudit.errors import DataError

GREY = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 1, 4, 5)
LABELS = np.array([0, 3])


def npz(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    return str(path)


def test_uint8_is_divided_by_255_exactly(tmp_path):
    examples = load_examples(npz(tmp_path, x=GREY, y=LABELS))
    assert torch.equal(examples.x, torch.from_numpy(GREY).float() / 255)
    assert examples.y.tolist() == [0, 3]
    assert examples.classes is None


def test_floats_in_range_are_kept(tmp_path):
    x = np.linspace(0, 1, 2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    assert np.array_equal(load_examples(npz(tmp_path, x=x, y=LABELS)).x.numpy(), x)


def test_rounding_left_by_an_undone_normalisation_is_clipped(tmp_path):
    x = np.array([-3e-8, 1.0000001], dtype=np.float32).reshape(2, 1, 1, 1)
    assert load_examples(npz(tmp_path, x=x, y=LABELS)).x.flatten().tolist() == [0, 1]


def test_grey_images_without_a_channel_get_one(tmp_path):
    examples = load_examples(npz(tmp_path, x=GREY[:, 0], y=LABELS))
    assert torch.equal(examples.x, torch.from_numpy(GREY).float() / 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_is_recognised_where_the_shape_leaves_no_doubt(tmp_path, channels):
    first = np.random.default_rng(0).integers(0, 256, (2, channels, 4, 5), dtype=np.uint8)
    examples = load_examples(npz(tmp_path, x=first.transpose(0, 2, 3, 1), y=LABELS))
    assert torch.equal(examples.x, torch.from_numpy(first).float() / 255)


def test_a_doubtful_shape_is_taken_as_channels_first(tmp_path):
    x = np.zeros((2, 3, 4, 3), dtype=np.uint8)
    assert load_examples(npz(tmp_path, x=x, y=LABELS)).x.shape == (2, 3, 4, 3)


def test_split_is_taken_from_the_keys(tmp_path):
    path = npz(tmp_path, x_train=GREY[:1], y_train=LABELS[:1], x_test=GREY, y_test=LABELS)
    assert len(load_examples(path)) == 2
    assert len(load_examples(path, split="train")) == 1


def test_safetensors_gives_the_same_examples(tmp_path):
    path = tmp_path / "data.safetensors"
    save_file({"x": torch.from_numpy(GREY), "y": torch.from_numpy(LABELS)}, path)
    theirs = load_examples(npz(tmp_path, x=GREY, y=LABELS))
    assert load_examples(str(path)).sha256 == theirs.sha256


def test_safetensors_half_precision_is_read(tmp_path):
    path = tmp_path / "data.safetensors"
    x = torch.tensor([0.25, 0.5]).reshape(2, 1, 1, 1)
    save_file({"x": x.bfloat16(), "y": torch.tensor([0, 1])}, path)
    assert torch.equal(load_examples(str(path)).x, x)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=9))
@settings(max_examples=25, deadline=None)
def test_every_byte_lands_in_the_unit_interval_in_order(tmp_path_factory, values):
    x = np.array(values, dtype=np.uint8).reshape(-1, 1, 1, 1)
    path = npz(tmp_path_factory.mktemp("h"), x=x, y=np.zeros(len(values), dtype=np.int64))
    loaded = load_examples(path).x.flatten()
    assert loaded.min() >= 0
    assert loaded.max() <= 1
    assert torch.equal(loaded.double().mul(255).round().long(), torch.tensor(values))


FLOATS = GREY.astype(np.float32) / 255
BAD = {
    "keys": ({"images": GREY, "labels": LABELS}, "it holds images, labels"),
    "nan": ({"x": np.where(GREY == 5, np.nan, FLOATS), "y": LABELS}, "not finite"),
    "infinity": ({"x": np.where(GREY == 5, np.inf, FLOATS), "y": LABELS}, "not finite"),
    "bytes as floats": ({"x": FLOATS * 255, "y": LABELS}, r"lie in \[0, 39\]"),
    "normalised": ({"x": FLOATS - 0.5, "y": LABELS}, r"lie in \[-0.5, "),
    "integers": ({"x": GREY.astype(np.int64), "y": LABELS}, "images are int64"),
    "negative": ({"x": GREY, "y": LABELS - 1}, "label -1 is negative"),
    "float labels": ({"x": GREY, "y": LABELS.astype(float)}, "labels are float64"),
    "one-hot": ({"x": GREY, "y": np.eye(2, dtype=int)}, r"labels have shape \(2, 2\)"),
    "lengths": ({"x": GREY, "y": np.array([1, 2, 3])}, "2 images but 3 labels"),
    "flat": ({"x": GREY.reshape(2, -1), "y": LABELS}, r"shape \(2, 20\)"),
    "empty": ({"x": GREY[:0], "y": LABELS[:0]}, "no examples"),
    "no pixels": ({"x": GREY[:, :, :0], "y": LABELS}, "no pixels"),
    "objects": ({"x": np.array([{}, {}], dtype=object), "y": LABELS}, "not a readable npz"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD.values(), ids=BAD.keys())
def test_bad_arrays_are_refused(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        load_examples(npz(tmp_path, **arrays))


@pytest.mark.parametrize(
    ("images", "word"), [(FLOATS * 255, "255"), (FLOATS - 0.5, "normalisation")]
)
def test_range_advice_names_the_likely_cause(tmp_path, images, word):
    with pytest.raises(DataError) as caught:
        load_examples(npz(tmp_path, x=images, y=LABELS))
    assert word in (caught.value.advice or "")


def test_a_file_of_one_split_refuses_the_other(tmp_path):
    with pytest.raises(DataError, match="not train") as caught:
        load_examples(npz(tmp_path, x=GREY, y=LABELS), split="train")
    assert "x_train" in (caught.value.advice or "")


@pytest.mark.parametrize("name", ["none.npz", "none.safetensors"])
def test_no_such_file(tmp_path, name):
    with pytest.raises(DataError, match="no such file"):
        load_examples(str(tmp_path / name))


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"not at all", b"PK\x03\x04" + bytes(40), bytes(99)])
def test_damaged_files_are_refused(tmp_path, ending, content):
    path = tmp_path / f"data.{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"not a readable {ending}"):
        load_examples(str(path))


def test_every_truncation_of_a_good_file_is_refused(tmp_path):
    good = (tmp_path / "good.npz", tmp_path / "cut.npz")
    np.savez_compressed(good[0], x=GREY, y=LABELS)
    whole = good[0].read_bytes()
    for length in range(0, len(whole), 7):
        good[1].write_bytes(whole[:length])
        with pytest.raises(DataError):
            load_examples(str(good[1]))


def test_an_npy_file_in_disguise_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    with path.open("wb") as file:
        np.save(file, GREY)
    with pytest.raises(DataError, match="single array"):
        load_examples(str(path))


def test_names_of_classes(tmp_path):
    names = np.array(["cat", "dog", "", "ein Schaf"])
    examples = load_examples(npz(tmp_path, x=GREY, y=LABELS, class_names=names))
    assert examples.class_names == ("cat", "dog", "", "ein Schaf")
    assert examples.taken(slice(1)).class_names == examples.class_names
    groups = np.array([7, 7])
    both = load_examples(npz(tmp_path, x=GREY, y=LABELS, class_names=names, groups=groups))
    assert both.class_names == examples.class_names
    assert both.groups.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (np.array(["cat", "dog"]), "names 2 classes, but there is a label 3"),
        (np.arange(4), "class_names is int64 of shape"),
        (np.array([["a", "b"], ["c", "d"]]), "not a list of texts"),
        (np.array(["a", None], dtype=object), "arrays of objects"),
    ],
)
def test_names_that_cannot_be_are_refused(tmp_path, names, said):
    with pytest.raises(DataError, match=said):
        load_examples(npz(tmp_path, x=GREY, y=LABELS, class_names=names))
