"""Published checkpoints, where the folder that holds them is named by ROBAUDIT_REAL_DATA."""

import json
import os
from pathlib import Path

import pyautoattack
import pytest
import torch
from support.console import robaudit as run
from support.identified import (
    CIFAR,
    KNOWN,
    NETWORKS,
    SAMPLES,
    bare_sample,
    judge,
    robust_accuracy,
)
from support.published_networks import cnn_a, conv_small, trades_small_cnn

from robaudit.checkpoints import inspect_file, load, read_state_dict
from robaudit.data import load_examples
from robaudit.errors import CheckpointError, OpenQuestionError
from robaudit.types import ThreatModel

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


BY_HAND = {
    "sdp_cifar_cnn_a_mix.model": cnn_a,
    "eran_cifar_conv_small_pgd.pth": conv_small,
    "trades_mnist_smallcnn.pt": trades_small_cnn,
}


@pytest.mark.slow
@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.file)
def test_what_is_found_is_the_truth_or_harmless_or_open(known):
    threat = ThreatModel("linf", known.eps)
    path = Path(FOLDER) / "checkpoints" / known.file
    told = {"arch": f"{NETWORKS}:{known.factory}"} if known.factory else {}
    found, examples = judge(path, Path(FOLDER) / known.data, threat, **told)
    if isinstance(found, OpenQuestionError):
        assert known.file not in NEVER_OPEN
        left = [line.split("  ")[0] for line in found.candidates if "%" in line]
        assert any(name.split(", ")[-1] == known.truth for name in left)
        return
    origin = found.origin
    assert origin.normalization_known == "determined"
    if not known.factory and origin.architecture.startswith("sequential"):
        assert f"-{known.activation}-" in origin.architecture
    if origin.normalization != known.truth:
        truth = load(path, arch=told.get("arch", origin.architecture), normalize=known.truth,
                     device="cpu")  # fmt: skip
        accuracies = [robust_accuracy(one, examples, threat) for one in (found, truth)]
        assert abs(accuracies[0] - accuracies[1]) <= 0.01
    if known.file in BY_HAND:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state["state_dict"][0] if "state_dict" in state else state
        network = BY_HAND[known.file]().eval()
        network.load_state_dict(state)
        x = examples.x[:64]
        torch.testing.assert_close(found.network(x), network(x))


NEVER_OPEN = {"trades_mnist_smallcnn.pt", "sdp_mnist_cnn_a_adv.model", "colt_mnist01.pt"}


@pytest.mark.parametrize("n", [32, 64, 200])
def test_few_images_of_their_own_never_find_another(n):
    # The first 1024 decide on the command line; here there are no more than these.
    known = next(one for one in KNOWN if one.file == "sdp_mnist_cnn_a_adv.model")
    path = Path(FOLDER) / "checkpoints" / known.file
    examples = load_examples(str(Path(FOLDER) / known.data), n=n)
    threat = ThreatModel("linf", known.eps)
    try:
        origin = load(path, device="cpu", examples=examples, threat=threat).origin
    except OpenQuestionError:
        return
    assert origin.normalization == "none"
    assert "-relu-" in origin.architecture


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_without_their_records(name, tmp_path):
    found, _ = judge(bare_sample(name, tmp_path), "digits", ThreatModel("linf", 0.15))
    assert found.origin.normalization == "none"
    assert found.origin.architecture_known == "determined"


def test_the_documented_normalisation_gives_the_documented_accuracy():
    # alpha-beta-CROWN verifies this network with these numbers: 68.2 % of the first 1000.
    path = Path(FOLDER) / "checkpoints" / "sdp_cifar_cnn_a_adv.model"
    examples = load_examples(str(Path(FOLDER) / "cifar10_test_first1017.npz"), n=1000)
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
    examples = load_examples(str(Path(FOLDER) / "cifar10_test_first1017.npz"), n=512)
    found = load(path, device="cpu", examples=examples)
    assert found.origin.architecture.startswith("resnet(depth=18")
    assert found.origin.normalization == "none"
    assert found.origin.normalization_known == "determined"
    # Published: 93.8 % of the whole test set.
    assert 0.91 < found.origin.trials[0].accuracy < 0.96


RUN = [f"run_smallnet/ckpt_{epoch}.pth" for epoch in (1, 4, 9, 15)]
SHOWN = (69.8, 62.3, 77.3, 82.1)


@pytest.mark.slow
def test_a_run_is_one_question_and_its_curve_the_true_one(tmp_path):
    paths = [str(Path(FOLDER) / "checkpoints" / name) for name in RUN]
    words = ["wci", *paths, "--data", str(Path(FOLDER) / CIFAR), "--n", "200", "--eps", "8/255"]
    told_nothing = run(*words)
    assert told_nothing.code == 4
    assert told_nothing.err.count("the same question") == 3
    assert "Say what it was in training: --arch and --normalize" in told_nothing.err
    told = run(*words, "--arch", f"{NETWORKS}:smallnet", "--normalize", "cifar10-moments",
               "--out", str(tmp_path / "out"))  # fmt: skip
    assert told.code == 0
    values = [
        next(m["value"] for m in json.loads(path.read_text())["measurements"]
             if m["name"] == "wci")
        for path in sorted((tmp_path / "out").rglob("report.json"))
    ]  # fmt: skip
    assert sorted(values) == pytest.approx(sorted(SHOWN), abs=0.1)  # the attack's draws move it
