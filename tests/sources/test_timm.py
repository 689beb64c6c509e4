"""timm's networks by name, where timm is installed."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from robaudit.checkpoints.sources import files_of, open_source
from robaudit.errors import CheckpointError, UsageError

timm = pytest.importorskip("timm")

SMALL = "timm:test_vit.r160_in1k"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub-home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hf"


def made(name="test_vit.r160_in1k"):
    torch.manual_seed(5)
    network = timm.create_model(name, pretrained=False).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    return network


def logits(network, size=160):
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network(x)


@pytest.mark.parametrize("text", [SMALL, "timm:test_vit"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_called_by_the_network_is_read(text, suffix, tmp_path):
    network = made()
    path = tmp_path / f"{text.removeprefix('timm:')}{suffix}"
    state = network.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    opened = open_source(text, model_dir=tmp_path)
    assert torch.equal(logits(opened.network), logits(network))
    assert opened.architecture == SMALL
    assert opened.normalization is not None
    assert opened.normalization.mean == tuple(network.pretrained_cfg["mean"])
    assert opened.normalization.std == tuple(network.pretrained_cfg["std"])
    assert opened.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert any("160x160" in remark for remark in opened.remarks)
    assert not opened.network.training
    assert "state_dict" not in opened.network.pretrained_cfg


def test_the_hugging_face_cache_is_looked_into(tmp_path, empty_caches):
    network = made()
    snapshot = empty_caches / "models--timm--test_vit.r160_in1k" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("a" * 40)
    save_file(network.state_dict(), snapshot / "model.safetensors")
    assert files_of(SMALL) == (snapshot / "model.safetensors",)
    assert torch.equal(logits(open_source(SMALL).network), logits(network))


def test_older_keys_are_converted_as_timm_does(tmp_path):
    name = "swin_tiny_patch4_window7_224.ms_in1k"
    network = made(name)
    old = {}
    for key, value in network.state_dict().items():
        if key.startswith("layers.") and ".downsample." in key:
            _, place, rest = key.split(".", 2)
            key = f"layers.{int(place) - 1}.{rest}"
        old[key.replace("head.fc.", "head.")] = value
    assert old.keys() != network.state_dict().keys()
    torch.save({"model": old}, tmp_path / f"{name}.pth")
    opened = open_source(f"timm:{name}", model_dir=tmp_path)
    assert torch.equal(logits(opened.network, 224), logits(network, 224))


def test_weights_of_another_network_are_refused(tmp_path):
    state = made().state_dict()
    state.pop("head.weight")
    torch.save(state, tmp_path / "test_vit.pth")
    with pytest.raises(CheckpointError, match=r"does not fit timm's test_vit\.r160_in1k"):
        open_source("timm:test_vit", model_dir=tmp_path)


def test_a_missing_file_is_named_with_the_places_looked_at(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        open_source(SMALL, model_dir=tmp_path)
    assert str(tmp_path / "test_vit.r160_in1k.safetensors") in caught.value.message
    assert "timm/test_vit.r160_in1k" in caught.value.message
    assert "--download" in (caught.value.advice or "")


def test_a_failed_download_says_why():
    with pytest.raises(CheckpointError, match="could not be fetched"):
        open_source(SMALL, download=True)  # the hub is offline


@pytest.mark.parametrize(
    ("text", "said", "advised"),
    [
        ("resnet5", "'resnet50'", "list_models"),
        ("resnet50.nobody", "no weights 'nobody' for resnet50", "a1_in1k"),
        ("vit_base_patch14_dinov2", "features, not logits", "classification"),
    ],
)
def test_a_name_that_is_none_is_met_with_those_there_are(text, said, advised):
    with pytest.raises(UsageError) as caught:
        open_source(f"timm:{text}")
    assert said in caught.value.message
    assert advised in (caught.value.advice or "")
