"""Without ``--data`` a checkpoint is measured on what it was trained on, or robaudit says what to
type: never on something else.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robaudit.display import Display
from robaudit.errors import CheckpointError, DataError
from robaudit.request import Request
from robaudit.session.which_data import with_data


class Told(Display):
    """Keeps the notes."""

    def __init__(self):
        self.notes = []

    def note(self, message, advice=None):
        self.notes.append(message)


def cifar_net(classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, classes)
    )


def mnist_net():
    return nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10))


def digits_net():
    return nn.Sequential(nn.Conv2d(1, 4, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A home and a working folder without data."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("ROBAUDIT_DATA_DIR", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def saved(nowhere):
    def save(network, name="ckpt.pt"):
        torch.save(network.state_dict(), nowhere / name)
        return str(nowhere / name)

    return save


def data_of(checkpoint, display=None, **options):
    return with_data(Request(**options), [checkpoint], display).data


def put(root, name):
    (
        root / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}.get(name, name)
    ).mkdir(parents=True)


def test_a_cifar_10_network_without_the_set_is_told_what_to_type(saved):
    checkpoint = saved(cifar_net())
    with pytest.raises(DataError) as caught:
        data_of(checkpoint)
    assert caught.value.exit_code == 4
    assert "cifar10 or svhn" in caught.value.message
    assert "--data cifar10 --download" in caught.value.advice
    assert "--data-dir" in caught.value.advice


@pytest.mark.parametrize("place", ["data", "home/data", "named", "data/cifar10"])
def test_the_set_is_used_where_it_usually_lies(saved, nowhere, monkeypatch, place):
    checkpoint = saved(cifar_net())
    monkeypatch.setenv("HOME", str(nowhere / "home"))
    if place == "named":
        monkeypatch.setenv("ROBAUDIT_DATA_DIR", str(nowhere / place))
    put(nowhere / place, "cifar10")
    told = Told()
    assert data_of(checkpoint, told) == "cifar10"
    (line,) = told.notes
    assert line.startswith("--data cifar10, in ")


def test_a_folder_that_is_named_is_the_only_one_looked_at(saved, nowhere):
    checkpoint = saved(cifar_net())
    put(nowhere / "data", "cifar10")
    with pytest.raises(DataError, match="not in elsewhere"):
        data_of(checkpoint, data_dir=nowhere.__class__("elsewhere"))


def test_classes_tell_the_hundred(saved, nowhere):
    checkpoint = saved(cifar_net(100))
    put(nowhere / "data", "cifar10")
    with pytest.raises(DataError, match="cifar100"):
        data_of(checkpoint)
    put(nowhere / "data", "cifar100")
    assert data_of(checkpoint) == "cifar100"


def test_digits_are_for_networks_of_the_digits_alone(saved):
    assert data_of(saved(digits_net())) == "digits"
    with pytest.raises(DataError, match="mnist or fashion-mnist"):
        data_of(saved(mnist_net()))
    with pytest.raises(DataError, match="imagenet"):
        data_of(imagenet(saved))


def imagenet(saved):
    """A network of torchvision's, with 1000 outputs."""
    models = pytest.importorskip("torchvision.models")
    return saved(models.squeezenet1_1(), "squeezenet.pt")


def test_what_the_file_records_comes_first(nowhere):
    path = nowhere / "said.safetensors"
    save_file(cifar_net().state_dict(), path, metadata={"robaudit.data": "svhn"})
    with pytest.raises(DataError, match=r"needs svhn .the checkpoint's own record"):
        data_of(str(path))
    torch.save({"state_dict": cifar_net().state_dict(), "dataset": "CIFAR-10"}, nowhere / "a.pt")
    with pytest.raises(DataError, match=r"needs cifar10 .the checkpoint's own record"):
        data_of(str(nowhere / "a.pt"))


def test_a_network_of_no_known_data_says_so(saved):
    with pytest.raises(DataError, match="nothing says which data"):
        data_of(saved(cifar_net(7)))


def test_the_users_code_is_asked(saved, nowhere):
    (nowhere / "net.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 100))\n"
    )
    checkpoint = saved(nn.Sequential(nn.Flatten(), nn.Linear(3072, 100)))
    put(nowhere / "data", "cifar100")
    assert data_of(checkpoint, arch=f"{nowhere}/net.py:net") == "cifar100"


def test_sets_of_the_same_images_are_asked_by_accuracy(saved, nowhere, monkeypatch):
    """Both are there; the network is right on one of them."""
    datasets = pytest.importorskip("torchvision.datasets")
    rng = np.random.default_rng(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 64), nn.ReLU(), nn.Linear(64, 10))
    pixels = rng.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
    with torch.no_grad():
        known = network(torch.from_numpy(pixels).float() / 255).argmax(1).numpy()

    class Cifar:
        def __init__(self, root, train, download):
            self.data, self.targets = pixels.transpose(0, 2, 3, 1), ((known + 1) % 10).tolist()

    class Svhn:
        def __init__(self, root, split, download):
            self.data, self.labels = pixels, known

    monkeypatch.setattr(datasets, "CIFAR10", Cifar)
    monkeypatch.setattr(datasets, "SVHN", Svhn)
    put(nowhere / "data", "cifar10")
    (nowhere / "data" / "test_32x32.mat").write_bytes(b"")
    assert data_of(saved(network)) == "svhn"


def test_what_is_named_is_not_looked_for(nowhere):
    assert data_of("no-such-file.pt", data="mnist") == "mnist"
    with pytest.raises(CheckpointError, match="no such file"):
        data_of("no-such-file.pt")
