"""Adversarial examples survive the way through a file, and only that file's kind is read."""

from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from robaudit.audit import adversarial_file
from robaudit.audit.adversarial_file import (
    Adversarial,
    check_same_data,
    read_adversarial,
    save_adversarial,
)
from robaudit.data import load_examples
from robaudit.engine import images
from robaudit.engine.images import StoredImages
from robaudit.errors import DataError, UsageError
from robaudit.types import ThreatModel


@pytest.fixture
def made(few):
    return Adversarial(
        x=(few.x + 0.01).clamp(0, 1), y=few.y, index=few.index, broken=few.y > 4,
        threat=ThreatModel("linf", 8 / 255), data="digits", split="test", data_sha256=few.sha256,
        made_on="robust.pt", made_by="pgd",
    )  # fmt: skip


def test_the_same_comes_back(made, few, tmp_path):
    path = tmp_path / "adv.safetensors"
    save_adversarial(path, made)
    found = read_adversarial(path)
    for field in fields(Adversarial):
        mine, theirs = getattr(made, field.name), getattr(found, field.name)
        same = torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs
        assert same, field.name
    check_same_data(found, few)
    assert [entry.name for entry in tmp_path.iterdir()] == ["adv.safetensors"]
    as_data = load_examples(str(path))
    assert torch.equal(as_data.x, made.x)
    assert torch.equal(as_data.y, made.y)


def test_other_clean_examples_are_refused(made, train, few):
    with pytest.raises(DataError, match="32 examples of digits"):
        check_same_data(made, train)
    with pytest.raises(DataError, match="32 examples"):
        check_same_data(replace(made, y=1 - made.y), few)


@pytest.mark.parametrize("kind", ["absent", "text", "other", "shapes", "eps"])
def test_other_files_are_refused(made, kind, tmp_path):
    path = tmp_path / "adv.safetensors"
    if kind == "text":
        path.write_text("hello")
    if kind == "other":
        save_file({"x": torch.zeros(1)}, path)
    if kind == "shapes":
        save_adversarial(path, replace(made, index=made.index[:3]))
    if kind == "eps":
        object.__setattr__(made.threat, "eps", -1.0)
        save_adversarial(path, made)
    with pytest.raises(DataError, match=r"adv\.safetensors"):
        read_adversarial(path)


def test_an_unwritable_place_is_said(made, tmp_path):
    with pytest.raises(UsageError, match="cannot write"):
        save_adversarial(tmp_path / "none" / "adv.safetensors", made)


def test_more_images_than_memory_holds_stay_in_the_file(made, tmp_path, monkeypatch):
    """Written from a store in parts, and read in parts: the same file, the same images."""
    save_adversarial(tmp_path / "plain.safetensors", made)
    monkeypatch.setattr(images, "_TILE_BYTES", 5 * made.x[0].nbytes)
    monkeypatch.setattr(adversarial_file, "LARGE", 0)
    stored = StoredImages(made.x.shape, lambda rows: made.x[rows])
    save_adversarial(tmp_path / "stored.safetensors", replace(made, x=stored))
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("plain", "stored")]
    assert files[0] == files[1]
    assert torch.equal(load_file(tmp_path / "stored.safetensors")["x"], made.x)
    found = read_adversarial(tmp_path / "stored.safetensors")
    assert isinstance(found.x, StoredImages)
    mixed = torch.tensor([5, 2, 2, 30, 6])
    assert torch.equal(found.x[mixed], made.x[mixed])
    assert torch.equal(found.x[3:9], made.x[3:9])
