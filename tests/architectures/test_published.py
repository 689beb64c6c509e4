"""Checkpoints that other people trained are identified by their shapes."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from robaudit.checkpoints.architectures import identify

FOLDER = os.environ.get("ROBAUDIT_REAL_DATA")
LAYERS = "conv3x16k4s2p{0}-relu-conv16x32k4s2p{0}-relu-flatten-linear{1}x100-relu-linear100x10"
FILES = {
    "trades_mnist_smallcnn.pt": ((1, 28, 28), "small_cnn"),
    "sdp_cifar_cnn_a_adv.model": (
        (3, 32, 32),
        f"sequential_cnn(layers={LAYERS.format(1, 2048)})",
    ),
    "sdp_cifar_cnn_a_mix.model": (
        (3, 32, 32),
        f"sequential_cnn(layers={LAYERS.format(1, 2048)})",
    ),
    "eran_cifar_conv_small_pgd.pth": (
        (3, 32, 32),
        f"sequential_cnn(layers={LAYERS.format(0, 1152)})",
    ),
}


def shapes_in(path):
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    state = state[0] if isinstance(state, list) else state
    return {key.removeprefix("module."): tuple(value.shape) for key, value in state.items()}


@pytest.mark.real
@pytest.mark.skipif(not FOLDER, reason="ROBAUDIT_REAL_DATA is not set")
@pytest.mark.parametrize("name", FILES)
def test_verification_and_trades_checkpoints(name):
    image, label = FILES[name]
    shapes = shapes_in(Path(FOLDER) / "checkpoints" / name)
    assert identify(shapes)[0].label == label
    found = [candidate.label for candidate in identify(shapes, image=image)]
    assert found[0] == label
    # What the layers activate with, their shapes do not say.
    assert len(found) == (1 if label == "small_cnn" else 10)


def test_the_example_of_pyautoattack():
    spec = find_spec("pyautoattack")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "examples" / "model_test.pt"
    if not path.is_file():
        pytest.skip("this release of pyautoattack has no example checkpoint")
    found = identify(shapes_in(path), image=(3, 32, 32))
    assert [candidate.label for candidate in found] == [
        "resnet(depth=18, activation=relu)",
        "resnet(depth=18, activation=silu)",
    ]
