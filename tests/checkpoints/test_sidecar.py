"""What a sidecar or metadata may say: names of known libraries' networks, and never code."""

import pytest
import torch
from safetensors.torch import save_file

from robaudit.checkpoints import read_container
from robaudit.checkpoints.sidecar import statement_of
from robaudit.errors import CheckpointError


def stated(tmp_path, text):
    path = tmp_path / "net.pt"
    torch.save({"w": torch.ones(2)}, path)
    (tmp_path / "net.pt.toml").write_text(text)
    return statement_of(read_container(path))


@pytest.mark.parametrize(
    "architecture",
    ["wide_resnet(depth=34, width=10)", "torchvision:resnet50", "timm:vit_base_patch16_224.augreg"],
)
def test_names_of_architectures(tmp_path, architecture):
    assert stated(tmp_path, f"architecture = '{architecture}'").architecture == architecture


@pytest.mark.parametrize(
    "architecture",
    [
        "my:code",
        "timm:../x",
        "timm:a:b",
        "timm:",
        "torchvision:a/b",
        "timm:hf-hub:x",
        "a.py",
        "x/y",
        "timm:a b",
        "Timm:resnet18",
    ],
)
@pytest.mark.parametrize("where", ["sidecar", "metadata"])
def test_code_is_refused_wherever_it_is_named(tmp_path, architecture, where):
    if where == "sidecar":
        with pytest.raises(CheckpointError, match="names code"):
            stated(tmp_path, f"architecture = '{architecture}'")
        return
    path = tmp_path / "net.safetensors"
    save_file({"w": torch.ones(2)}, path, {"robaudit.architecture": architecture})
    with pytest.raises(CheckpointError, match="names code") as caught:
        statement_of(read_container(path))
    assert "--arch" in caught.value.advice


def test_arguments_are_numbers_and_short_texts(tmp_path):
    statement = stated(tmp_path, "[kwargs]\ndepth = 34\nactivation = 'swish'")
    assert statement.kwargs == {"depth": 34, "activation": "swish"}


@pytest.mark.parametrize("value", ["1.5", "true", "[1]", "'" + "x" * 201 + "'"])
def test_other_arguments(tmp_path, value):
    with pytest.raises(CheckpointError, match="whole numbers"):
        stated(tmp_path, f"[kwargs]\na = {value}")


def test_a_folder_named_by_a_dot(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert statement_of(read_container(".")) is None
