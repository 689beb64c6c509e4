"""torchvision's networks by name: the file is found, checked and read, the library builds."""

import hashlib
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from robaudit.checkpoints.sources import files_of, open_source
from robaudit.errors import CheckpointError, UsageError

SMALL = "torchvision:squeezenet1_1"
OWN_NAME = "squeezenet1_1-b8a52dc0.pth"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub-home"))
    return tmp_path / "hub-home" / "hub" / "checkpoints"


def made(name="squeezenet1_1", **options):
    torch.manual_seed(5)
    return models.get_model(name, weights=None, **options).eval()


def logits(network, size=64):
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network(x)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".bin"])
def test_a_file_called_by_the_network_is_read(suffix, tmp_path):
    network = made()
    path = tmp_path / f"squeezenet1_1{suffix}"
    state = network.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    opened = open_source(SMALL, model_dir=tmp_path)
    assert torch.equal(logits(opened.network), logits(network))
    assert opened.architecture == SMALL
    assert opened.normalization is not None
    assert opened.normalization.name == "imagenet"
    assert opened.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert opened.published == {"clean_acc": pytest.approx(0.58178)}
    assert any("256" in remark and "224" in remark for remark in opened.remarks)
    assert not opened.network.training
    assert files_of(SMALL, model_dir=tmp_path) == (path,)


def test_what_belongs_to_the_weights_comes_with_them(tmp_path):
    # GoogLeNet's published weights want images normalised in another way than the usual one, and
    # come with two auxiliary classifiers that are dropped.
    network = made("googlenet", aux_logits=True, init_weights=False)
    torch.save(network.state_dict(), tmp_path / "googlenet.pth")
    opened = open_source("torchvision:googlenet", model_dir=tmp_path)
    assert opened.network.transform_input is True
    assert opened.network.aux1 is None
    network.transform_input = True
    assert torch.equal(logits(opened.network), logits(network))


def test_old_keys_are_renamed_as_torchvision_does(tmp_path):
    network = made("densenet121")
    old = {
        key.replace("norm1.", "norm.1.").replace("conv1.", "conv.1.")
        if "denselayer" in key
        else key: value
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")  # younger than those keys
    }
    assert old.keys() != network.state_dict().keys()
    torch.save(old, tmp_path / "densenet121.pth")
    opened = open_source("torchvision:densenet121", model_dir=tmp_path)
    assert torch.equal(logits(opened.network), logits(network))


def test_the_enumeration_of_weights_is_left_as_it_was(tmp_path):
    torch.save(made().state_dict(), tmp_path / "squeezenet1_1.pth")
    open_source(SMALL, model_dir=tmp_path)
    member = models.SqueezeNet1_1_Weights.DEFAULT
    assert "get_state_dict" not in vars(member)


@pytest.mark.parametrize("in_cache", [True, False])
def test_a_file_that_is_not_the_one_in_its_name_is_refused(in_cache, tmp_path, empty_cache):
    folder = empty_cache if in_cache else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(made().state_dict(), folder / OWN_NAME)
    assert files_of(SMALL, model_dir=tmp_path) == (folder / OWN_NAME,)
    with pytest.raises(CheckpointError, match="not the b8a52dc0 in its name"):
        open_source(SMALL, model_dir=tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(made("squeezenet1_0").state_dict(), tmp_path / "squeezenet1_1.pth")
    with pytest.raises(CheckpointError, match="does not fit torchvision's squeezenet1_1"):
        open_source(SMALL, model_dir=tmp_path)


def test_a_missing_file_is_named_with_the_places_looked_at(tmp_path, empty_cache):
    for open_it in (open_source, files_of):
        with pytest.raises(CheckpointError) as caught:
            open_it(SMALL, model_dir=tmp_path)
        assert str(tmp_path / OWN_NAME) in caught.value.message
        assert str(empty_cache / OWN_NAME) in caught.value.message
        assert "--download" in (caught.value.advice or "")


def test_a_download_is_checked_before_it_is_kept(tmp_path, empty_cache, monkeypatch):
    asked = []

    def page(url, path, progress):
        asked.append(url.rpartition("/")[2])
        with open(path, "w") as file:  # noqa: PTH123
            file.write("<html>try again later</html>")

    monkeypatch.setattr(torch.hub, "download_url_to_file", page)
    with pytest.raises(CheckpointError, match="HTML page"):
        open_source(SMALL, download=True)
    assert asked == [OWN_NAME]
    assert not list(empty_cache.iterdir())


def test_a_set_of_weights_is_chosen_by_name(tmp_path):
    own = models.ResNet50_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    (tmp_path / own).touch()
    (tmp_path / "resnet50.pth").touch()
    found = files_of("torchvision:resnet50:imagenet1k_v1", model_dir=tmp_path)
    assert found == (tmp_path / own,)
    # The network's name alone stands for its usual weights, and for no others.
    assert files_of("torchvision:resnet50", model_dir=tmp_path) == (tmp_path / "resnet50.pth",)
    (tmp_path / own).unlink()
    with pytest.raises(CheckpointError, match=own):
        files_of("torchvision:resnet50:IMAGENET1K_V1", model_dir=tmp_path)


@pytest.mark.parametrize(
    ("text", "said", "advised"),
    [
        ("resnet5", "'resnet50'", "list_models"),
        ("fcn_resnet50", "no classification network", "list_models"),
        ("resnet50:IMAGENET1K_V3", "no weights 'IMAGENET1K_V3'", "IMAGENET1K_V1, IMAGENET1K_V2"),
        ("mnasnet0_5:V9", "no weights 'V9'", "IMAGENET1K_V1"),
        ("", "no classification network", "list_models"),
    ],
)
def test_a_name_that_is_none_is_met_with_those_there_are(text, said, advised):
    with pytest.raises(UsageError) as caught:
        open_source(f"torchvision:{text}")
    assert said in caught.value.message
    assert advised in (caught.value.advice or "")


def test_asking_what_a_source_is_imports_nothing():
    code = (
        "import sys; from robaudit.checkpoints.sources import is_source; "
        "assert is_source('torchvision:resnet50'); assert 'torch' not in sys.modules"
    )
    paths = ["", *sys.path]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}; {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
