"""``robaudit doctor`` says what is there, and whether a checkpoint and the data fit."""

import json
from importlib import metadata

import numpy as np
import pytest
import torch
from support import console

import robaudit as ra
from robaudit.audit.plan import preset


def looked_at(*words):
    ran = console.robaudit("doctor", *words, "--json")
    assert ran.code == 0, ran.err
    return {
        title: {one["about"]: one for one in findings}
        for title, findings in json.loads(ran.out).items()
    }


def test_versions_are_those_installed():
    found = looked_at()["Installed"]
    for package in ("torch", "numpy", "scipy"):
        assert found[package]["found"] == metadata.version(package)


def test_data_sets_are_found_where_an_audit_finds_them(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    found = looked_at("--data-dir", tmp_path)["Data sets"]
    assert found["cifar10"]["found"] == str(tmp_path)
    assert "mnist" in found["Not found"]["found"]
    assert "cifar10" not in found["Not found"]["found"].split(", ")


def test_a_checkpoint_is_run_on_the_data():
    found = looked_at(console.ROBUST, "--data", "digits")["Checkpoint"]
    examples = ra.load_examples("digits", n=64)
    model = ra.load(str(console.ROBUST), device="cpu")
    with torch.no_grad():
        right = int((model(examples.x).argmax(1) == examples.y).sum())
    assert f"{right} of the first 64" in found["Data"]["found"]
    assert found["Data"]["advice"] == ""
    for name in ("quick", "standard", "paper"):
        assert f"{preset(name).n} images" in found[f"--preset {name}"]["found"]


def test_a_checkpoint_that_cannot_be_opened_ends_as_an_audit_would(tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no checkpoint")
    assert console.robaudit("doctor", broken, "--data", "digits").code == 4


def test_a_network_that_is_mostly_wrong_is_doubted(tmp_path):
    examples = ra.load_examples("digits", n=64)
    y = torch.where(torch.arange(64) < 40, (examples.y + 1) % 10, examples.y)
    np.savez(tmp_path / "wrong.npz", x=examples.x.numpy(), y=y.numpy())
    found = looked_at(console.ROBUST, "--data", tmp_path / "wrong.npz", "--eps", "0.1")
    assert "--normalize" in found["Checkpoint"]["Data"]["advice"]


def test_an_unknown_device_is_refused():
    ran = console.robaudit("doctor", "--device", "tpu")
    assert ran.code == 2
    assert "unknown device" in ran.err


@pytest.mark.gpu
def test_the_device_is_named():
    assert torch.cuda.get_device_name() in looked_at()["Machine"]["Device"]["found"]
