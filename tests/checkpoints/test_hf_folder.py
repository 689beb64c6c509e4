"""Hugging Face folders: every shard, nothing outside them, and what the configuration says."""

import hashlib
import json
import subprocess

import pytest
import torch
from safetensors.torch import save_file

from robaudit.checkpoints import inspect_file, read_state_dict
from robaudit.checkpoints.files.container import read_container
from robaudit.checkpoints.sidecar import statement_of
from robaudit.errors import CheckpointError

STATE = {f"layer{n}.weight": torch.full((2, 3), float(n)) for n in range(5)}
TIMM = {
    "architecture": "resnet18",
    "num_classes": 10,
    "pretrained_cfg": {"mean": [0.5, 0.25, 0.125], "std": [0.5, 0.5, 0.5]},
}


def folder(tmp_path, kind="one", config=TIMM):
    place = tmp_path / "hub"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    if kind == "one":
        save_file(STATE, place / "model.safetensors")
    elif kind == "bin":
        torch.save(STATE, place / "pytorch_model.bin")
    else:
        names = {}
        for part in range(2):
            shard = f"model-0000{part + 1}-of-00002.{'safetensors' if kind == 'shards' else 'bin'}"
            own = dict(list(STATE.items())[part::2])
            (save_file if kind == "shards" else torch.save)(own, place / shard)
            names |= dict.fromkeys(own, shard)
        stem = "model.safetensors" if kind == "shards" else "pytorch_model.bin"
        index = {"metadata": {"total_size": 1}, "weight_map": dict(sorted(names.items()))}
        (place / f"{stem}.index.json").write_text(json.dumps(index))
    return place


@pytest.mark.parametrize("kind", ["one", "bin", "shards", "bin shards"])
def test_all_weights_are_read_as_one_state_dict(tmp_path, kind):
    place = folder(tmp_path, kind)
    weights = read_state_dict(place)
    assert weights.format == "hf-folder"
    assert list(weights.state_dict) == list(STATE)
    assert all(torch.equal(weights.state_dict[key], STATE[key]) for key in STATE)
    seen = inspect_file(place)
    assert seen.parameters == sum(value.numel() for value in STATE.values())
    assert seen.architecture == "timm:resnet18"
    assert seen.normalization == "0.5,0.25,0.125;0.5,0.5,0.5"


def test_the_hash_is_the_one_of_sha256sum(tmp_path):
    place = folder(tmp_path, "shards")
    files = sorted(path.name for path in place.glob("*.safetensors"))
    lines = subprocess.run(["sha256sum", *files], cwd=place, capture_output=True, check=True).stdout
    expected = hashlib.sha256(lines).hexdigest()
    assert read_container(place).sha256 == expected
    assert read_state_dict(place, sha256=expected).sha256 == expected
    one = folder(tmp_path / "other", "one") if (tmp_path / "other").mkdir() is None else None
    whole = hashlib.sha256((one / "model.safetensors").read_bytes()).hexdigest()
    assert read_container(one).sha256 == whole


def test_what_a_transformers_configuration_says(tmp_path):
    config = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
    place = folder(tmp_path, config=config)
    preprocessor = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (place / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    container = read_container(place)
    assert container.metadata["model_type"] == "vit"
    assert container.metadata["architectures"] == "ViTForImageClassification"
    statement = statement_of(container)
    assert statement.architecture is None
    assert statement.normalization == "0.5,0.5,0.5;0.25,0.25,0.25"


def test_a_preprocessor_that_does_not_normalise_states_nothing(tmp_path):
    place = folder(tmp_path, config={"model_type": "vit"})
    preprocessor = {"do_normalize": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (place / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    assert statement_of(read_container(place)) is None


@pytest.mark.parametrize("name", ["../evil.py:build", "a/b", "file.py", "x;y", "", 5, None])
def test_a_configuration_cannot_name_code(tmp_path, name):
    place = folder(tmp_path, config={"architecture": name})
    statement = statement_of(read_container(place))
    assert statement is None or statement.architecture == f"timm:{name}" == "timm:file.py"


@pytest.mark.parametrize(
    "target",
    [
        "../secret.safetensors",
        "/etc/passwd",
        "sub/x.safetensors",
        "..",
        "",
        "a\0b",
        "link",
        "c:\\x",
    ],
)
def test_an_index_cannot_lead_out_of_the_folder(tmp_path, target):
    place = folder(tmp_path, "shards")
    save_file(STATE, tmp_path / "secret.safetensors")
    (place / "link").symlink_to(tmp_path / "secret.safetensors")
    index = {"weight_map": dict.fromkeys(STATE, target)}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    for reader in (read_state_dict, inspect_file):
        with pytest.raises(CheckpointError, match="not in the folder"):
            reader(place)


def test_a_weight_file_that_is_a_link_out_of_the_folder(tmp_path):
    place = folder(tmp_path)
    (place / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (place / "model.safetensors").symlink_to("../elsewhere.safetensors")
    with pytest.raises(CheckpointError, match="not in the folder"):
        read_state_dict(place)


def test_the_layout_of_a_download_cache(tmp_path):
    """Files of a snapshot are links to the cache's blobs."""
    made = folder(tmp_path)
    snapshot = tmp_path / "models--x--y" / "snapshots" / "abc"
    blobs = tmp_path / "models--x--y" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in made.iterdir():
        path.rename(blobs / path.name.replace(".", "_"))
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name.replace('.', '_')}")
    assert list(read_state_dict(snapshot).state_dict) == list(STATE)


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {}}',
        "[" * 100_000,
        '{"weight_map": {"a": "absent.safetensors"}}',
    ],
)
def test_bad_indexes(tmp_path, index):
    place = folder(tmp_path, "shards")
    (place / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError):
        read_state_dict(place)


def test_shards_that_are_not_those_of_the_index(tmp_path):
    place = folder(tmp_path, "shards")
    index = json.loads((place / "model.safetensors.index.json").read_text())
    index["weight_map"]["absent"] = next(iter(index["weight_map"].values()))
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="lack 'absent'"):
        read_state_dict(place)
    del index["weight_map"]["absent"], index["weight_map"]["layer0.weight"]
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"'layer0\.weight'"):
        read_state_dict(place)
