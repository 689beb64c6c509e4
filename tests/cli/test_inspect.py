"""`robaudit inspect` and the small commands."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
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
    every = robaudit("inspect", ROBUST, "--tensors").out
    assert re.search(r"head\.bias +\(10,\) +float32", every)


def test_inspect_as_json():
    ran = robaudit("inspect", ROBUST, "--json")
    found = json.loads(ran.out)
    assert found["sha256"] == hashlib.sha256(ROBUST.read_bytes()).hexdigest()
    state = torch.load(ROBUST, weights_only=True)
    shapes = {tensor["name"]: tuple(tensor["shape"]) for tensor in found["tensors"]}
    assert shapes == {key: tuple(value.shape) for key, value in state.items()}
    assert json.loads(robaudit("inspect", ROBUST, "--json", "--no-hash").out)["sha256"] is None


def test_inspect_shows_which_of_several_is_taken_and_others_on_request(place):
    state = {"fc.weight": torch.ones(2, 2)}
    torch.save({"model": state, "ema": {"fc.weight": torch.ones(3, 3)}}, "two.pt")
    ran = robaudit("inspect", "two.pt")
    assert ran.code == 0
    assert "also there: 'ema'" in ran.out
    assert "--member" in ran.out
    for how in (("--member", "ema"), ("--weights", "ema")):
        ran = robaudit("inspect", "two.pt", "--json", *how)
        found = json.loads(ran.out)
        assert (found["member"], found["members"]) == ("ema", ["model", "ema"])
        assert found["tensors"][0]["shape"] == [3, 3]
    ran = robaudit("inspect", "two.pt", "--member", "mode")
    assert ran.code == 2
    assert "Did you mean --member model?" in ran.err


def test_inspect_of_a_hugging_face_folder(place):
    (place / "hub").mkdir()
    config = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (place / "hub" / "config.json").write_text(json.dumps(config))
    save_file({"fc.weight": torch.ones(2, 2)}, place / "hub" / "model.safetensors")
    ran = robaudit("inspect", "hub")
    assert (ran.code, ran.err) == (0, "")
    for words in ("hf-folder", "timm:resnet18", "0.5,0.5,0.5;0.25,0.25,0.25"):
        assert words in ran.out


def test_inspect_of_a_whole_module(place):
    torch.save(torch.nn.Linear(2, 3), "net.pt")
    ran = robaudit("inspect", "net.pt")
    assert (ran.code, ran.err) == (0, "")
    assert "a whole module" in ran.out
    assert re.search(r"weight +\(3, 2\) +float32", ran.out)


SPARSE = 1 << 30
COUNTED = """
import sys
def read():
    return int(open("/proc/self/io").read().split()[1])
from robaudit.checkpoints.inspection import inspect_file
before = read()
found = inspect_file(sys.argv[1])
print(found.parameters, read() - before, "torch" in sys.modules)
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts reads as Linux does")
@pytest.mark.parametrize("kind", ["safetensors", "legacy"])
def test_inspect_of_a_large_file_reads_no_tensor_data(kind, place):
    path = place / "large.pt"
    elements = SPARSE // 4
    if kind == "safetensors":
        span = {"dtype": "F32", "shape": [elements], "data_offsets": [0, SPARSE]}
        head = json.dumps({"w": span}).encode()
        path.write_bytes(len(head).to_bytes(8, "little") + head)
    else:
        torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
        data = path.read_bytes()[:-20].replace(b"K\x03", b"J" + elements.to_bytes(4, "little"))
        path.write_bytes(data + elements.to_bytes(8, "little"))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + SPARSE)
    ran = subprocess.run(
        [sys.executable, "-c", COUNTED, str(path)],
        capture_output=True,
        text=True,
        cwd=Path(package.__file__).parents[1],
    )
    parameters, bytes_read, torch_too = ran.stdout.split()
    assert (int(parameters), torch_too) == (elements, "False")
    assert int(bytes_read) < 5 << 20


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
    assert len(ran.err.splitlines()) <= 3  # the hint follows a blank line


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


@pytest.mark.slow
def test_demo_audits_five_samples_side_by_side(place):
    ran = robaudit("demo", "--n", 4, "--no-gap", "--quiet", "--out", "out")
    assert (ran.code, ran.err) == (0, "")
    names = ["overfit", "robust", "smooth", "standard", "trades"]
    assert sorted(path.name for path in (place / "out").iterdir()) == ["index.html", *names]
    for name in names:
        assert name in ran.out
        report = json.loads((place / "out" / name / "report.json").read_text())
        assert report["subject"]["source"].startswith(str(samples_dir()))
        unmeasured = {m["name"] for m in report["measurements"] if m["status"] != "ok"}
        assert unmeasured == {"pacbayes.bound"}  # which is of the training split
    assert "How to read it" in ran.out
