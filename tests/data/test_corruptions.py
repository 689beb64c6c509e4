"""Folders of corrupted images: what is read, and what is refused."""

import pickle

import numpy as np
import pytest
import torch
from support.corrupted import corrupted_digits, write_arrays, write_images

from robaudit.data import load_examples, open_corrupted
from robaudit.data.corruptions import find_corrupted
from robaudit.datasets import CORRUPTIONS
from robaudit.errors import DataError, UsageError

FEW = ("snow", "fog")


@pytest.fixture
def arrays(tmp_path):
    return write_arrays(tmp_path / "arrays", FEW)


def opened(folder, corruptions=FEW, severities=()):
    return open_corrupted(f"corruptions:{folder}", None, corruptions, severities)


def test_arrays_are_read_severity_by_severity(arrays):
    found = opened(arrays)
    assert (found.count, found.corruptions, found.shape) == (500, FEW, (1, 8, 8))
    assert found.severities == (1, 2, 3, 4, 5)
    rows = [3, 499, 7]
    assert torch.equal(found.labels(rows), load_examples("digits").y[rows])
    for name in FEW:
        for severity in (1, 5):
            want = corrupted_digits(name, severity)[rows].transpose(0, 3, 1, 2)
            assert np.array_equal(found.images(name, severity, rows).numpy(), want)


@pytest.mark.parametrize("category", [None, "weather"])
def test_image_files_are_the_same_images_in_the_order_of_their_names(tmp_path, category):
    folder = write_images(tmp_path, FEW, n=20, category=category)
    found = opened(folder, ("fog",), (2, 4))
    y = load_examples("digits", n=20).y
    order = sorted(range(20), key=lambda at: (int(y[at]), at))
    assert found.count == 20
    assert found.classes == len(set(y.tolist()))
    assert found.severities == (2, 4)
    want = corrupted_digits("fog", 4, 20)[order].transpose(0, 3, 1, 2)
    assert np.array_equal(found.images("fog", 4, list(range(20))).numpy(), want)


def test_labels_may_be_there_once(tmp_path):
    once = opened(write_arrays(tmp_path, FEW, repeated=False))
    assert torch.equal(once.labels(range(500)), load_examples("digits").y)


def test_extra_corruptions_are_left_out_and_unknown_files_named(tmp_path):
    folder = write_arrays(tmp_path, (*CORRUPTIONS, "saturate", "mine"))
    whole = opened(folder, ())
    assert whole.corruptions == CORRUPTIONS
    assert whole.unknown == ("mine.npy",)
    assert opened(folder, ("mine", "saturate", "fog")).corruptions == ("fog", "saturate", "mine")


def test_it_is_found_by_its_published_name_and_in_the_folder_itself(tmp_path):
    folder = write_arrays(tmp_path / "CIFAR-10-C", FEW)
    for name in ("cifar10", "cifar10-c"):
        assert find_corrupted(name, tmp_path) == folder
        assert find_corrupted(name, folder) == folder
    assert find_corrupted("cifar100-c", tmp_path) is None
    with pytest.raises(DataError, match=r"no folder CIFAR-100-C in "):
        open_corrupted("cifar100-c", tmp_path)


def test_loaded_as_examples_it_is_the_mildest_version_of_each_image(arrays):
    examples = load_examples(f"corruptions:{arrays}", n=6)
    want = [corrupted_digits(FEW[at % 2], 1)[at, :, :, 0] / 255 for at in range(6)]
    assert np.allclose(examples.x[:, 0].numpy(), want, atol=1e-7)
    assert torch.equal(examples.y, load_examples("digits", n=6).y)
    with pytest.raises(DataError, match="split test"):
        load_examples(f"corruptions:{arrays}", split="train")


def spoil(folder, name, change):
    path = folder / name
    np.save(path, change(np.load(path)))


WRONG = {
    "a file is missing": (
        lambda f: (f / "fog.npy").unlink(), "lacks 1 of 2 corruptions: fog.npy",
    ),
    "no labels": (lambda f: (f / "labels.npy").unlink(), "lacks labels.npy"),
    "floats": (
        lambda f: spoil(f, "fog.npy", lambda a: a / 255), "fog.npy holds float64, not uint8",
    ),
    "channels first": (
        lambda f: spoil(f, "snow.npy", lambda a: a.transpose(0, 3, 1, 2)), "snow.npy has shape",
    ),
    "flat": (lambda f: spoil(f, "snow.npy", lambda a: a.reshape(len(a), -1)), "has shape"),
    "not five severities": (
        lambda f: spoil(f, "snow.npy", lambda a: a[:-1]), "2499 images, which is no multiple of 5",
    ),
    "fewer images": (
        lambda f: spoil(f, "fog.npy", lambda a: a[:100]), r"fog.npy has shape \(100, 8, 8, 1\)",
    ),
    "labels of other images": (
        lambda f: spoil(f, "labels.npy", lambda a: a[:100]), "not 500 or 2500 integers",
    ),
    "labels as floats": (
        lambda f: spoil(f, "labels.npy", lambda a: a.astype(float)), "labels.npy holds float64",
    ),
    "negative labels": (
        lambda f: spoil(f, "labels.npy", lambda a: a - 1), "a label -1, but classes are counted",
    ),
    "shuffled severities": (
        lambda f: spoil(f, "labels.npy", lambda a: np.roll(a, 1) * (np.arange(2500) > 0)),
        "labels differ from severity to severity",
    ),
    "objects": (
        lambda f: np.save(f / "fog.npy", np.array([{}], dtype=object), allow_pickle=True),
        "fog.npy: not a readable npy file",
    ),
    "a pickle": (
        lambda f: (f / "fog.npy").write_bytes(pickle.dumps(np.zeros(5))), "not a readable npy file",
    ),
    "cut off": (
        lambda f: (f / "fog.npy").write_bytes((f / "fog.npy").read_bytes()[:5000]),
        "not a readable npy file",
    ),
    "an npz file": (
        lambda f: np.savez((f / "fog.npy").open("wb"), x=np.zeros(3)), "not a single array",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_array_is_named(arrays, kind):
    change, message = WRONG[kind]
    change(arrays)
    with pytest.raises(DataError, match=message) as refused:
        opened(arrays)
    assert refused.value.exit_code == 4


def test_images_and_labels_must_be_the_known_sets(tmp_path):
    write_arrays(tmp_path / "CIFAR-10-C", FEW)
    with pytest.raises(DataError, match="images of 8x8x1, not those of cifar10"):
        open_corrupted("cifar10-c", tmp_path, FEW)
    for name in FEW:
        np.save(tmp_path / "CIFAR-10-C" / f"{name}.npy", np.zeros((10, 32, 32, 3), np.uint8))
    np.save(tmp_path / "CIFAR-10-C" / "labels.npy", np.array([3, 10]))
    with pytest.raises(DataError, match="a label 10, but classes are 0 to 9"):
        open_corrupted("cifar10-c", tmp_path, FEW)


def test_missing_severities_classes_and_files_are_named(tmp_path):
    folder = write_images(tmp_path, FEW, n=12)
    (folder / "fog" / "3").rename(folder / "fog" / "three")
    with pytest.raises(DataError, match="fog lacks severity 3"):
        opened(folder)
    assert opened(folder, FEW, (1, 2)).count == 12
    (folder / "fog" / "three").rename(folder / "fog" / "3")
    (folder / "fog" / "3" / "1").rename(folder / "fog" / "3" / "one")
    with pytest.raises(DataError, match="lacks the class 1"):
        opened(folder)
    (folder / "fog" / "3" / "one").rename(folder / "fog" / "3" / "1")
    next((folder / "fog" / "3" / "1").iterdir()).unlink()
    found = opened(folder)
    with pytest.raises(DataError, match=r"fog/3/1/\d+.png: not a readable image"):
        found.images("fog", 3, list(range(12)))


def test_unknown_corruptions_and_severities_are_refused(arrays):
    with pytest.raises(DataError, match=r"has no corruption fogg.npy; did you mean 'fog'\?"):
        opened(arrays, ("fogg",))
    with pytest.raises(UsageError, match="severity 6"):
        opened(arrays, FEW, (6,))
    with pytest.raises(DataError, match="no such folder"):
        opened(arrays / "nowhere")
    with pytest.raises(DataError, match=r"lacks 13 of 15 corruptions: gaussian_noise\.npy, "):
        opened(arrays, ())
