"""From a file to a classifier: the choice of network, the normalisation, and the fit."""

import json
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robaudit.checkpoints import inspect_file, load, samples, samples_dir
from robaudit.checkpoints.architectures.registry import ARCHITECTURES
from robaudit.errors import CheckpointError, UsageError

CODE = """
from torch import nn

def small(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),
                                  nn.Linear(144, 10))
def hundred(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(),
                                    nn.Linear(144, 100))
def wide(): return nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.Flatten(),
                                 nn.Linear(64, 10))
def other(): return nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
def double(): return small().double()
"""


@pytest.fixture
def small(tmp_path):
    """A little network that no registry knows, its file, and the code that builds it."""
    (tmp_path / "nets.py").write_text(CODE)
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))
    network(torch.rand(8, 3, 8, 8))  # moves the running statistics
    network.eval()
    path = tmp_path / "small.pt"
    torch.save(network.state_dict(), path)
    return network, path, str(tmp_path / "nets.py")


@pytest.fixture
def digits(tmp_path):
    torch.manual_seed(2)
    network = ARCHITECTURES["digits_resnet"].factory(classes=7, width=4).eval()
    path = tmp_path / "digits.safetensors"
    save_file(network.state_dict(), path)
    return network, path


def test_the_users_code(small):
    network, path, code = small
    classifier = load(path, arch=f"{code}:small", normalize="none", device="cpu")
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(classifier(x), network(x))
    origin = classifier.origin
    assert (origin.source, origin.format, origin.member) == (str(path), "torch-zip", "")
    assert origin.architecture == f"{code}:small"
    assert origin.identified_by == "--arch"
    assert origin.normalization == "none"
    assert origin.parameters == sum(p.numel() for p in network.parameters())
    assert origin.warnings == ()
    assert len(origin.sha256) == 64
    assert not classifier.training


def test_normalisation_left_out_is_warned_about(small):
    _, path, code = small
    (warning,) = load(path, arch=f"{code}:small", device="cpu").origin.warnings
    assert "no normalisation given" in warning
    assert "--normalize" in warning


def test_normalisation_enters(small):
    network, path, code = small
    classifier = load(path, arch=f"{code}:small", normalize="half", device="cpu")
    x = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(classifier(x), network((x - 0.5) / 0.5))
    assert classifier.origin.normalization == "half"


def test_loading_draws_nothing_from_the_random_state(small, digits):
    for path, arch in ((small[1], f"{small[2]}:small"), (digits[1], None)):
        torch.manual_seed(0)
        expected = torch.rand(3)
        torch.manual_seed(0)
        load(path, arch=arch, device="cpu")
        assert torch.equal(torch.rand(3), expected)


def test_identified_by_shapes(digits):
    network, path = digits
    classifier = load(path, device="cpu")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(classifier(x), network(x))
    assert classifier.origin.architecture == "digits_resnet(classes=7, width=4)"
    assert classifier.origin.identified_by == "its keys and shapes"
    assert classifier.origin.warnings == ()
    seen = inspect_file(path)
    assert seen.architecture == "digits_resnet(classes=7, width=4)"


def test_prefixed_keys_are_identified(digits, tmp_path):
    state = {f"module.{key}": value for key, value in digits[0].state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    assert load(tmp_path / "w.pt", device="cpu").origin.member == "state_dict"
    seen = inspect_file(tmp_path / "w.pt")
    assert seen.architecture == "digits_resnet(classes=7, width=4)"


def test_a_named_architecture(digits):
    assert load(digits[1], arch="digits_resnet", device="cpu").origin.identified_by == "--arch"
    with pytest.raises(UsageError, match="did you mean 'digits_resnet'") as caught:
        load(digits[1], arch="digits_resnt", device="cpu")
    assert "digits_vit" in caught.value.advice
    with pytest.raises(CheckpointError, match="does not fit"):
        load(digits[1], arch="digits_vit", device="cpu")


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        ("digits_resnet(widht=4)", "widht"),
        ("torchvision:resnet5", "did you mean 'resnet50'"),
        ("digits_resnet(", "digits_resnet("),
        ("digits_resnet(width)", "width"),
    ],
)
def test_an_arch_that_gives_no_network(digits, arch, says):
    with pytest.raises(UsageError) as caught:
        load(digits[1], arch=arch, device="cpu")
    assert says in caught.value.message
    assert caught.value.advice


def test_a_library_that_is_not_installed(digits, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="needs timm") as caught:
        load(digits[1], arch="timm:resnet50", device="cpu")
    assert "robaudit[timm]" in caught.value.advice


def test_metadata_of_the_file(digits, tmp_path):
    path = tmp_path / "said.safetensors"
    said = {"robaudit.architecture": "digits_resnet", "robaudit.normalization": "half"}
    save_file(digits[0].state_dict(), path, said)
    origin = load(path, device="cpu").origin
    assert origin.identified_by == "the file's metadata"
    assert origin.normalization == "half"
    assert load(path, normalize="none", device="cpu").origin.normalization == "none"
    seen = inspect_file(path)
    assert (seen.architecture, seen.normalization) == ("digits_resnet", "half")
    assert "metadata" in seen.architecture_reason


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_sidecar(digits, suffix):
    path = digits[1]
    beside = path.with_name(path.name + suffix)
    said = {"architecture": "digits_resnet", "normalization": "0.5;0.25", "kwargs": {"width": 4}}
    toml = 'architecture="digits_resnet"\nnormalization="0.5;0.25"\n[kwargs]\nwidth=4\n'
    beside.write_text(json.dumps(said) if suffix == ".json" else toml)
    origin = load(path, device="cpu").origin
    assert origin.identified_by == beside.name
    assert origin.normalization == "0.5;0.25"
    assert inspect_file(path).architecture == "digits_resnet"


@pytest.mark.parametrize(
    "text",
    [
        "architecture = 3",
        "archtecture = 'digits_resnet'",
        "architecture =",
        "kwargs = 3",
        "[kwargs]\nwidth = [3]",
        "architecture = 'my:code'",
        "architecture = 'unknown'",
        "normalization = 'unknown'",
        "architecture = 'digits_resnet'\n[kwargs]\nwidth = 8",
        "architecture = 'digits_resnet'\n[kwargs]\nwidth = 100000000",
        "architecture = 'digits_resnet'\n[kwargs]\nunknown = 8",
        "architecture = 'digits_resnet'\n[kwargs]\nwidth = -1",
    ],
)
def test_sidecars_that_cannot_be_meant(digits, text):
    digits[1].with_name(digits[1].name + ".toml").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        load(digits[1], device="cpu")
    assert caught.value.exit_code == 4


def test_an_unknown_network_is_listed_with_the_way_out(small):
    state = {key.replace(".", ".x."): value for key, value in small[0].state_dict().items()}
    torch.save({**state, "3.x.gate": torch.ones(7)}, small[1])
    with pytest.raises(CheckpointError) as caught:
        load(small[1], device="cpu")
    assert "these 10 tensors" in caught.value.message
    assert "0.x.weight (4, 3, 3, 3)" in caught.value.message
    assert "3.x.gate (7,)" in caught.value.message
    assert "--arch file.py:factory" in caught.value.advice


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("hundred", "the file has 10 classes, the architecture 100"),
        ("wide", "0.weight is 4x3x3x3 in the file and 4x3x5x5 in the network"),
        ("other", "2 missing (1.weight, 1.bias)"),
    ],
)
def test_a_network_that_does_not_fit(small, factory, says):
    _, path, code = small
    if factory == "other":
        torch.save({"w": torch.ones(1)}, path)
    with pytest.raises(CheckpointError) as caught:
        load(path, arch=f"{code}:{factory}", device="cpu")
    assert says in caught.value.message
    assert caught.value.exit_code == 4


def test_missing_and_unexpected_keys_are_counted(small):
    network, path, code = small
    state = {key.replace("3.", "fc."): value for key, value in network.state_dict().items()}
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        load(path, arch=f"{code}:small", device="cpu")
    assert "2 missing (3.weight, 3.bias)" in caught.value.message
    assert "2 unexpected (fc.weight, fc.bias)" in caught.value.message


def test_files_without_batch_counters_are_read(small):
    network, path, code = small
    state = network.state_dict()
    del state["1.num_batches_tracked"]
    torch.save(state, path)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(load(path, arch=f"{code}:small", device="cpu")(x), network(x))


def test_batch_statistics_may_not_be_missing(small):
    network, path, code = small
    state = network.state_dict()
    del state["1.running_mean"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"1 missing \(1\.running_mean\)"):
        load(path, arch=f"{code}:small", device="cpu")


def test_integers_do_not_become_weights(small):
    network, path, code = small
    state = {**network.state_dict(), "0.weight": torch.ones(4, 3, 3, 3, dtype=torch.int8)}
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="quantised, by int8 numbers"):
        load(path, arch=f"{code}:small", device="cpu")


def test_a_factory_of_another_precision(small):
    network, path, code = small
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(load(path, arch=f"{code}:double", device="cpu")(x), network(x))


def test_another_precision_is_remarked(small):
    network, path, code = small
    half = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    torch.save(half, path)
    origin = load(path, arch=f"{code}:small", normalize="none", device="cpu").origin
    assert origin.warnings == ("weights stored as float16 are computed in float32",)


def test_options_are_judged_before_the_file_is_read(tmp_path):
    for options in ({"device": "tpu"}, {"normalize": "unknown"}):
        with pytest.raises(UsageError):
            load(tmp_path / "absent.pt", **options)


def test_the_samples_are_beside_the_package():
    assert samples_dir().name == "sample_checkpoints"


def test_an_installation_without_samples(monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "__file__", str(tmp_path / "robaudit" / "checkpoints" / "x.py"))
    with pytest.raises(CheckpointError, match="no sample checkpoints"):
        samples_dir()
