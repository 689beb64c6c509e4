"""`robaudit inspect` and the small commands."""

import hashlib
import json
import os

import pytest
import torch
from support.console import ROBUST, robaudit, uncoloured

import robaudit as package
from robaudit.checkpoints import samples_dir
from robaudit.cli import command


def test_inspect_tells_what_a_checkpoint_is():
    ran = robaudit("inspect", ROBUST)
    assert (ran.code, ran.err) == (0, "")
    assert hashlib.sha256(ROBUST.read_bytes()).hexdigest() in ran.out
    assert "digits_resnet" in ran.out
    assert "conv.weight" in ran.out
    assert "head.bias" not in ran.out  # past the first twelve
    assert "head.bias  (10,)  float32" in robaudit("inspect", ROBUST, "--tensors").out


def test_inspect_as_json():
    ran = robaudit("inspect", ROBUST, "--json")
    found = json.loads(ran.out)
    assert found["sha256"] == hashlib.sha256(ROBUST.read_bytes()).hexdigest()
    state = torch.load(ROBUST, weights_only=True)
    shapes = {tensor["name"]: tuple(tensor["shape"]) for tensor in found["tensors"]}
    assert shapes == {key: tuple(value.shape) for key, value in state.items()}
    assert json.loads(robaudit("inspect", ROBUST, "--json", "--no-hash").out)["sha256"] is None


class Run:
    def __reduce__(self):
        return os.system, ("touch canary",)


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_inspect_shows_a_dangerous_pickle_and_why_it_is_refused(how, place):
    torch.save({"weight": torch.ones(2), "run": Run()}, "evil.pt")
    ran = robaudit("inspect", "evil.pt", *how)
    assert ran.code == 4
    for words in ("system", "dangerous", "could run code"):
        assert words in ran.out
    assert not (place / "canary").exists()
    if how:
        assert json.loads(ran.out)["refusal"]


@pytest.mark.parametrize("name", ["missing.pt", "empty.pt"])
def test_inspect_of_no_checkpoint(name, place):
    (place / "empty.pt").write_bytes(b"")
    ran = robaudit("inspect", name)
    assert (ran.code, ran.out) == (4, "")
    assert name in ran.err
    assert len(ran.err.splitlines()) <= 2


def test_every_command_has_help_that_lists_its_options():
    for name, sub in command().commands.items():
        ran = robaudit(name, "--help")
        assert (ran.code, ran.err) == (0, "")
        for parameter in sub.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in uncoloured(ran.out), (name, parameter.opts)
        assert name in robaudit("--help").out


def test_version():
    assert robaudit("--version").out == f"robaudit {package.__version__}\n"


def test_no_command_shows_the_help():
    ran = robaudit()
    assert "Usage" in ran.out + ran.err
    assert "audit" in ran.out + ran.err


def test_demo_audits_five_samples_side_by_side(place):
    ran = robaudit("demo", "--n", 4, "--no-gap", "--quiet", "--out", "out")
    assert (ran.code, ran.err) == (0, "")
    names = ["overfit", "robust", "smooth", "standard", "trades"]
    assert sorted(path.name for path in (place / "out").iterdir()) == names
    for name in names:
        assert name in ran.out
        report = json.loads((place / "out" / name / "report.json").read_text())
        assert report["subject"]["source"].startswith(str(samples_dir()))
        assert {m["status"] for m in report["measurements"]} == {"ok"}
    assert "How to read it" in ran.out
