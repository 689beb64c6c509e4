"""Every command that takes ``--device`` works on a GPU, and says the CPU's numbers."""

import json

import pytest
from support.console import ROBUST, SAMPLES, robaudit
from support.corrupted import write_arrays

from robaudit.cli.app import command, leaves

FEW = ("--n", 64, "--quiet")
COMMANDS = {
    "audit": ("audit", ROBUST, "--preset", "quick", *FEW, "--json"),
    "attack": ("attack", ROBUST, "--attack", "pgd,cw,fast", *FEW, "--json"),
    "certify": (
        *("certify", ROBUST, "--n", 4, "--eps", "0.02", "--method", "crown"),
        *("--upper", "pgd", "--quiet", "--json"),
    ),
    "corruptions": ("corruptions", ROBUST, "--data", "corruptions:digits-c", *FEW, "--json"),
    "wci": ("wci", ROBUST, *FEW, "--json"),
    "flatness": ("flatness", ROBUST, *FEW, "--perturbations", 2, "--worst-restarts", 1, "--json"),
    "hessian": ("hessian", ROBUST, *FEW, "--top", 2, "--json"),
    "compare": ("compare", ROBUST, SAMPLES / "trades.safetensors", "--preset", "quick", *FEW),
    "demo": ("demo", *FEW),
    "doctor": ("doctor", ROBUST, "--quiet", "--json"),
    "landscape": ("landscape", ROBUST, *FEW, "--out", "out"),
    "init": ("init", ROBUST, *FEW, "--file", "first.toml"),
    "gate": ("gate", ROBUST, "--policy", "robaudit.toml", "--quiet"),
    "train": ("train", "digits-at", "--epochs", 1, "--out", "out", "--quiet"),
    "batch run": ("batch", ROBUST, "--preset", "quick", *FEW, "--out", "out"),
}
POLICY = """
[gate]
data = "digits"
n = 64
[gate.metrics."accuracy.pgd"]
min = 0.5
"""


def test_no_command_is_forgotten():
    on_devices = {
        name for name, sub in leaves(command()).items() if "device" in {p.name for p in sub.params}
    }
    assert COMMANDS.keys() == on_devices


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "robaudit.toml").write_text(POLICY)
    write_arrays(tmp_path / "digits-c")
    return tmp_path


@pytest.mark.gpu
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_works_on_a_gpu(name, place):
    ran = robaudit(*COMMANDS[name], "--device", "cuda")
    assert ran.code == 0, ran.err
    if "--json" not in COMMANDS[name]:
        return
    said = json.loads(ran.out)
    assert said["provenance"]["device"].startswith("cuda")
    on_cpu = json.loads(robaudit(*COMMANDS[name], "--device", "cpu").out)
    for got, want in zip(said["measurements"], on_cpu["measurements"], strict=True):
        assert (got["name"], got["status"]) == (want["name"], want["status"])
        if want["value"] is None:
            continue
        allowed = max((want["standard_error"] or 0) / 3, 0.02 * abs(want["value"]), 1e-3)
        assert got["value"] == pytest.approx(want["value"], abs=allowed), want["name"]


@pytest.mark.gpu
def test_adversarial_examples_made_on_a_gpu_are_judged_on_the_cpu(place):
    made = robaudit(
        "attack", ROBUST, *FEW, "--json", "--device", "cuda", "--save-adv", "adv.safetensors"
    )
    assert made.code == 0, made.err
    judged = robaudit(
        "attack", ROBUST, *FEW, "--json", "--device", "cpu", "--verify", "adv.safetensors"
    )
    assert judged.code == 0, judged.err
    robust = [
        next(m["value"] for m in json.loads(ran.out)["measurements"] if m["name"] == "accuracy.pgd")
        for ran in (made, judged)
    ]
    assert robust[1] == pytest.approx(robust[0], abs=2 / 64)
