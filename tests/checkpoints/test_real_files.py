"""Published checkpoints, where the folder that holds them is named by ROBAUDIT_REAL_DATA."""

import os
from pathlib import Path

import pyautoattack
import pytest
import torch
from support.published_networks import cnn_a, conv_small, trades_small_cnn

from robaudit.checkpoints import inspect_file, load, read_state_dict
from robaudit.data import load_examples
from robaudit.errors import CheckpointError

FOLDER = os.environ.get("ROBAUDIT_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER, reason="ROBAUDIT_REAL_DATA is not set"),
]

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


CIFAR, MNIST = "cifar10_test_first1017.npz", "mnist_test.npz"
# Right on how many of the first 1000, with the normalisation that is found; counted with torch.load
# and networks written by hand.
UNPROMPTED = {
    "checkpoints/sdp_cifar_cnn_a_adv.model": (CIFAR, "sequential_cnn", "cifar10", 703),
    "checkpoints/sdp_cifar_cnn_a_mix.model": (CIFAR, "sequential_cnn", "cifar10", 776),
    "checkpoints/eran_cifar_conv_small_pgd.pth": (CIFAR, "sequential_cnn", "cifar10", 630),
    "checkpoints/trades_mnist_smallcnn.pt": (MNIST, "small_cnn", "none", 994),
}
BY_HAND = {
    "sdp_cifar_cnn_a_adv": cnn_a,
    "sdp_cifar_cnn_a_mix": cnn_a,
    "eran_cifar_conv_small_pgd": conv_small,
    "trades_mnist_smallcnn": trades_small_cnn,
}


@pytest.mark.parametrize("name", UNPROMPTED)
def test_they_are_told_without_a_word(name):
    data, architecture, normalization, right = UNPROMPTED[name]
    path = Path(FOLDER) / name
    examples = load_examples(str(Path(FOLDER) / data), n=1000)
    found = load(path, device="cpu", examples=examples)
    assert found.origin.architecture.partition("(")[0] == architecture
    assert found.origin.normalization == normalization
    assert found.origin.warnings == ()
    assert int((found(examples.x).argmax(1) == examples.y).sum()) == right
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state["state_dict"][0] if "state_dict" in state else state
    network = BY_HAND[path.stem]().eval()
    network.load_state_dict(state)
    x = examples.x[:64]
    torch.testing.assert_close(found.network(x), network(x))


def test_the_documented_normalisation_gives_the_documented_accuracy():
    # alpha-beta-CROWN verifies this network with these numbers: 68.2 % of the first 1000.
    path = Path(FOLDER) / "checkpoints" / "sdp_cifar_cnn_a_adv.model"
    examples = load_examples(str(Path(FOLDER) / CIFAR), n=1000)
    found = load(path, normalize="crown", device="cpu", examples=examples)
    assert int((found(examples.x).argmax(1) == examples.y).sum()) == 682
    wrong = load(path, normalize="none", device="cpu")
    assert int((wrong(examples.x).argmax(1) == examples.y).sum()) < 300
    with pytest.raises(CheckpointError, match="guessing"):
        load(path, normalize="none", device="cpu", examples=examples)


@pytest.mark.slow
def test_the_batch_norm_network_of_pyautoattack():
    path = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"
    if not path.is_file():
        pytest.skip("this pyautoattack comes without its example")
    examples = load_examples(str(Path(FOLDER) / CIFAR), n=512)
    found = load(path, device="cpu", examples=examples)
    assert found.origin.architecture.startswith("resnet(depth=18")
    assert found.origin.normalization == "none"
    assert found.origin.warnings == ()
    # Published: 93.8 % of the whole test set.
    assert 0.91 < found.origin.trials[0].accuracy < 0.96
