"""torchvision's sets by name: the same numbers as its own transform, and clear refusals."""

import sys

import numpy as np
import pytest
import torch

from robaudit.data import load_examples
from robaudit.errors import DataError, UsageError

NAMES = ["mnist", "cifar10", "cifar100", "svhn"]


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


def test_mnist_equals_torchvisions_own_tensors(tmp_path):
    datasets = pytest.importorskip("torchvision.datasets")
    from torchvision.transforms import ToTensor

    rng = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in [("train", 6), ("t10k", 4)]:
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(raw / f"{part}-images-idx3-ubyte", images)
        write_idx(raw / f"{part}-labels-idx1-ubyte", rng.integers(0, 10, count, dtype=np.uint8))
    for split in ("train", "test"):
        theirs = datasets.MNIST(tmp_path, train=split == "train", transform=ToTensor())
        ours = load_examples("mnist", split=split, data_dir=tmp_path)
        assert torch.equal(ours.x, torch.stack([image for image, _ in theirs]))
        assert ours.y.tolist() == [label for _, label in theirs]
        assert ours.classes == 10


def test_cifar_and_svhn_layouts_become_channels_first(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)

    class Cifar:
        def __init__(self, root, train, download):
            self.data, self.targets = pixels.transpose(0, 2, 3, 1), [4, 99]
            self.classes = [f"class {label}" for label in range(100)]

    class Svhn:
        def __init__(self, root, split, download):
            self.data, self.labels = pixels, np.array([0, 9])

    monkeypatch.setattr(datasets, "CIFAR100", Cifar)
    monkeypatch.setattr(datasets, "SVHN", Svhn)
    for name, labels, classes in [("cifar100", [4, 99], 100), ("svhn", [0, 9], 10)]:
        examples = load_examples(name, data_dir=tmp_path)
        assert torch.equal(examples.x, torch.from_numpy(pixels).float() / 255)
        assert examples.y.tolist() == labels
        assert examples.classes == classes
        assert examples.class_names[99:] == (("class 99",) if name == "cifar100" else ())


@pytest.mark.parametrize("name", NAMES)
def test_without_a_folder_it_is_a_usage_error(name):
    with pytest.raises(UsageError) as caught:
        load_examples(name)
    assert "--data-dir" in (caught.value.advice or "")


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_without_the_set_is_named_and_download_offered(tmp_path, name):
    with pytest.raises(DataError) as caught:
        load_examples(name, data_dir=tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "--download" in (caught.value.advice or "")
    assert list(tmp_path.iterdir()) == []


def test_what_torchvision_prints_stays_off_stdout(tmp_path, monkeypatch, capsys):
    datasets = pytest.importorskip("torchvision.datasets")

    class Loud:
        def __init__(self, root, train, download):
            sys.stdout.write("fetching\n")
            self.data, self.targets = np.zeros((1, 32, 32, 3), dtype=np.uint8), [0]

    monkeypatch.setattr(datasets, "CIFAR10", Loud)
    load_examples("cifar10", data_dir=tmp_path, download=True)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "fetching\n")
