"""Published checkpoints, where the folder that holds them is named by ROBAUDIT_REAL_DATA."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from robaudit.checkpoints import inspect_file, load, read_state_dict

FOLDER = os.environ.get("ROBAUDIT_REAL_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="ROBAUDIT_REAL_DATA is not set")

FILES = {
    "trades_mnist_smallcnn.pt": ("torch-legacy", "", 14, 312_202),
    "sdp_cifar_cnn_a_adv.model": ("torch-zip", "", 8, 214_918),
    "sdp_cifar_cnn_a_mix.model": ("torch-zip", "", 8, 214_918),
    "eran_cifar_conv_small_pgd.pth": ("torch-zip", "state_dict[0]", 8, 125_318),
}


@pytest.mark.parametrize("name", FILES)
def test_they_load_as_torch_loads_them(name):
    path = Path(FOLDER) / "checkpoints" / name
    format, member, tensors, parameters = FILES[name]
    expected = torch.load(path, map_location="cpu", weights_only=True)
    if member:
        expected = expected["state_dict"][0]
    weights = read_state_dict(path)
    assert (weights.format, weights.member) == (format, member)
    assert weights.state_dict.keys() == expected.keys()
    assert all(torch.equal(weights.state_dict[key], expected[key]) for key in expected)
    seen = inspect_file(path)
    assert (len(seen.tensors), seen.parameters) == (tensors, parameters)
    assert seen.refusal is None


def test_one_of_them_as_a_classifier(tmp_path):
    code = tmp_path / "cnn_a.py"
    code.write_text(
        "from torch.nn import *\n"
        "def cnn_a(): return Sequential(Conv2d(3, 16, 4, 2, 1), ReLU(), Conv2d(16, 32, 4, 2, 1),\n"
        "    ReLU(), Flatten(), Linear(2048, 100), ReLU(), Linear(100, 10))\n"
    )
    path = Path(FOLDER) / "checkpoints" / "sdp_cifar_cnn_a_adv.model"
    normalize = "0.485,0.456,0.406;0.225,0.225,0.225"
    arch = f"{code}:cnn_a"
    with np.load(Path(FOLDER) / "cifar10_test_first1017.npz") as data:
        x = torch.from_numpy(data["x"][:1000]).float() / 255
        y = torch.from_numpy(data["y"][:1000]).long()
    right = load(path, arch=arch, normalize=normalize, device="cpu")
    # 68.2 % was measured independently, with torch.load and the network written by hand.
    assert (right(x).argmax(1) == y).sum() == 682
    wrong = load(path, arch=arch, device="cpu")
    assert (wrong(x).argmax(1) == y).sum() < 300
    assert "far too low" in wrong.origin.warnings[0]
