"""Whatever is wrong with the input: its exit code, one message that names it, and no output."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.console import ROBUST, entries, robaudit

QUICK = ("--n", 8, "--steps", 1)


def check_message(ran, code, names):
    """A line on stderr that names what is wrong, perhaps a hint, and nothing on stdout."""
    assert ran.code == code, ran.err
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert len(lines) in (1, 3), ran.err
    assert lines[0].startswith("robaudit: ")
    assert all(
        line.startswith(start) for line, start in zip(lines[1:], ("", "hint: "), strict=False)
    )
    assert lines[1:2] in ([], [""])
    assert "Traceback" not in ran.err
    assert "internal error" not in ran.err
    for name in names:
        assert str(name) in ran.err


@pytest.fixture
def refuses(place):
    """Runs a command that must be refused, and must write nothing anywhere."""

    def run(code, names, *words):
        before = entries(place)
        ran = robaudit(*words, "--quiet", "--out", place / "out")
        check_message(ran, code, names)
        left = [path for path in entries(place) if "__pycache__" not in path]
        assert left == before
        return ran

    return run


# Checkpoints: 4


def _truncated(path):
    path.write_bytes(ROBUST.read_bytes()[: ROBUST.stat().st_size // 2])


FILES = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "page": (lambda path: path.write_text("<!DOCTYPE html><html>404</html>"), "HTML page"),
    "truncated": (_truncated, "damaged or cut off"),
    "text": (lambda path: path.write_text("weights, perhaps\n"), "text.pt"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("command", ["attack", "audit"])
def test_files_that_are_no_checkpoints(kind, command, place, refuses):
    make, word = FILES[kind]
    path = place / f"{kind}.pt"
    make(path)
    refuses(4, [path.name, word], command, path, "--n", 8)


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path_factory, place, refuses):
    canary = tmp_path_factory.mktemp("canary") / "canary"
    torch.save({"weight": torch.ones(2), "run": Touch(canary)}, place / "evil.pt")
    refuses(4, ["evil.pt", "could run code", ".system"], "attack", place / "evil.pt", *QUICK)
    assert not canary.exists()
    pickle.loads(pickle.dumps(Touch(canary)))
    assert canary.exists(), "else the file above would have shown nothing"


@pytest.mark.parametrize(
    ("factory", "names"),
    [
        ("deep", ["3.weight", "3.bias", "missing"]),
        ("narrow", ["1.weight", "10x64", "10x49"]),
        ("five", ["10 classes", "5"]),
    ],
)
def test_weights_that_do_not_fit_the_architecture(factory, names, linear, refuses):
    names = ["linear.pt", "does not fit", *names]
    refuses(4, names, "attack", linear, "--arch", f"net.py:{factory}", *QUICK)


def test_an_architecture_that_nobody_knows(nameless, refuses):
    refuses(4, ["nameless.pt", "mine.weight (10, 64)", "--arch"], "attack", nameless, *QUICK)


@pytest.mark.parametrize(
    ("arch", "code", "names"),
    [
        ("nothing.py:linear", 2, ["nothing.py", "no such file"]),
        ("net.py:nothing", 2, ["net.py", "nothing"]),
        ("no_such_module:linear", 2, ["no_such_module"]),
        ("digits_resnett", 2, ["digits_resnett", "did you mean 'digits_resnet'"]),
        ("digits_vit", 4, ["linear.pt"]),
    ],
)
def test_an_arch_that_cannot_be_meant(arch, code, names, linear, refuses):
    refuses(code, names, "attack", linear, "--arch", arch, *QUICK)


def test_a_network_with_too_few_outputs(five_classes, refuses):
    refuses(4, ["5 outputs", "digits", "10 classes"], "attack", five_classes, *QUICK)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value, place, robust_state, refuses):
    weight = robust_state["block1.conv1.weight"].clone()
    weight[0, 0, 0, 0] = value
    torch.save({**robust_state, "block1.conv1.weight": weight}, place / "diverged.pt")
    names = ["diverged.pt", "block1.conv1.weight", "not finite"]
    refuses(4, names, "attack", place / "diverged.pt", *QUICK)


# Data: 4


def _arrays(**change):
    draw = np.random.default_rng(0)
    arrays = {"x": draw.random((20, 1, 8, 8), dtype=np.float32), "y": np.arange(20) % 10}
    return {**arrays, **{key: made(arrays) for key, made in change.items()}}


DATA = {
    "bytes as floats": (_arrays(x=lambda a: a["x"] * 255), ["not in [0, 1]", "255"]),
    "normalised": (_arrays(x=lambda a: a["x"] * 2 - 1), ["not in [0, 1]"]),
    "too high a label": (_arrays(y=lambda a: a["y"] + 5), ["10 outputs", "label 14"]),
    "negative label": (_arrays(y=lambda a: a["y"] - 3), ["-3", "negative"]),
    "three channels": (
        _arrays(x=lambda a: np.repeat(a["x"], 3, axis=1)),
        ["does not take images of shape (3, 8, 8)"],
    ),
    "NaN pixel": (_arrays(x=lambda a: a["x"] * np.nan), ["not finite"]),
    "no labels": (_arrays(y=lambda a: a["y"][:3]), ["20 images but 3 labels"]),
}


@pytest.mark.parametrize("kind", DATA)
def test_data_that_cannot_be_audited_on(kind, place, refuses):
    arrays, names = DATA[kind]
    np.savez(place / "data.npz", **arrays)
    if kind != "three channels":
        names = ["data.npz", *names]
    refuses(4, names, "attack", ROBUST, "--data", place / "data.npz", "--eps", 0.1, *QUICK)


def test_images_of_another_size_than_the_network_takes(place, linear, refuses):
    draw = np.random.default_rng(0)
    images = draw.random((20, 1, 9, 9), dtype=np.float32)
    np.savez(place / "data.npz", x=images, y=np.arange(20) % 10)
    refuses(
        4, ["does not take images of shape (1, 9, 9)"],
        "attack", linear, "--arch", "net.py:linear", "--data", "data.npz", "--eps", 0.1, *QUICK,
    )  # fmt: skip


def test_more_examples_than_there_are(refuses):
    refuses(4, ["digits", "500", "501"], "attack", ROBUST, "--n", 501)


# Options: 2


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--eps", "-0.1"), ["eps", "-0.1"]),
        (("--eps", "0"), ["eps", "positive"]),
        (("--eps", "abc"), ["eps", "abc"]),
        (("--eps", "nan"), ["eps", "nan"]),
        (("--eps", "inf"), ["eps", "inf"]),
        (("--eps", "1/0"), ["eps", "1/0"]),
        (("--eps", "8/255/2"), ["eps", "8/255/2"]),
        (("--batch-size", "x"), ["--batch-size", "x"]),
        (("--batch-size", "0"), ["--batch-size", "0"]),
        (("--device", "tpu"), ["tpu"]),
        (("--attack", "zap"), ["--attack", "zap", "pgd"]),
        (("--attack", "pgd,,cw"), ["--attack", "pgd,,cw"]),
        (("--normalize", "garbage"), ["garbage", "cifar10"]),
        (("--normalize", "0.5;0"), ["not positive"]),
        (("--normalize", "0.1,0.2;0.3"), ["2 means", "1 standard deviation"]),
        (("--normalize", "cifar10"), ["cifar10", "3 channels", "images have 1"]),
        (("--data", "digit"), ["'digit'", "did you mean 'digits'?"]),
        (("--data", "digit", "--eps", "0.1"), ["'digit'", "did you mean 'digits'?"]),
        (("--step-size", "-0.1"), ["--step-size", "-0.1"]),
        (("--step-size", "nan"), ["--step-size", "nan"]),
        (("--config", "missing.toml"), ["missing.toml", "No such file"]),
    ],
)
def test_an_option_that_cannot_be_meant(words, names, refuses):
    refuses(2, names, "attack", ROBUST, *QUICK, *words)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--xi", "-1"), ["xi of average", "-1"]),
        (("--xi", "nan"), ["xi of average", "nan"]),
        (("--worst-xi", "0"), ["xi of worst-case", "0"]),
    ],
)
def test_a_radius_of_flatness_that_cannot_be_meant(words, names, refuses):
    refuses(2, names, "flatness", ROBUST, *QUICK, *words)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("wci", "--layers", ","), ["--layers names no layer"]),
        (("wci", "--layers", "hed"), ["no layer 'hed'", "Did you mean head"]),
        (("wci", "--memory", "lots"), ["'lots'", "2GB"]),
        (("wci", "--memory", "1k"), ["1024 were granted"]),
        (("wci", "--penalty", "-1", "--objective", "trades"), ["penalty", "-1"]),
        (("wci", "--s0", "0"), ["s0", "positive", "0"]),
        (("wci", "--lambda", "nan"), ["lambda", "nan"]),
        (("hessian", "--layers", "block1.conv"), ["'block1.conv'", "block1.conv1"]),
        (("hessian", "--memory", "1k", "--layers", "conv"), ["1024"]),
        (("hessian", "--spread-probes", "1"), ["--spread-probes 1", "two probes"]),
        (("hessian", "--engine", "pyhessian", "--operator", "gauss-newton"), ["whole network"]),
    ],
)
def test_curvature_that_cannot_be_meant(words, names, refuses):
    refuses(2, names, words[0], ROBUST, *QUICK, *words[1:])


def test_cuda_where_there_is_none(refuses):
    refuses(2, ["--device cuda"], "attack", ROBUST, *QUICK, "--device", "cuda")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("epz = 0.1", ["attack has no option 'epz'", "did you mean 'eps'?"]),
        ("preset = 'quick'", ["attack has no option 'preset'"]),
        ("{{{", ["not TOML"]),
        ("norm = [0.1, 0.2]", ["norm", "a list"]),
        ("[steps]\nn = 3", ["steps", "a table"]),
        ("n = true", ["n ", "a single value", "true"]),
        ("quiet = 1", ["quiet", "true or false", "1"]),
        ("json = 'yes'", ["json", "true or false", "'yes'"]),
        ("eps = [0.1, true]", ["eps", "a list of them", "a list"]),
        ("eps = []", ["eps", "an empty list"]),
        ("help = true", ["no option 'help'"]),
        ("config = 'other.toml'", ["no option 'config'"]),
    ],
)
def test_a_config_that_cannot_be_meant(text, names, place, refuses):
    (place / "audit.toml").write_text(text)
    refuses(2, ["--config audit.toml", *names], "attack", ROBUST, "--config", "audit.toml")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("attack", ROBUST, "--n", "0"), ["--n"]),
        (("attack", ROBUST, "--n", "many"), ["--n"]),
        (("audit", ROBUST, "--preset", "nonsense"), ["--preset", "nonsense", "quick"]),
        (("attack", ROBUST, "--split", "validation"), ["--split", "validation", "train"]),
        (("attack", ROBUST, "--format", "pdf"), ["--format", "pdf", "json"]),
        (("attack", ROBUST, "--epz", "1"), ["--epz"]),
        (("attack",), ["CKPT"]),
        (("atack", ROBUST), ["atack"]),
    ],
)
def test_usage_that_typer_words_itself(words, names, place):
    """In a frame, with the way to the help above it; typer's sentences differ between versions."""
    before = entries(place)
    ran = robaudit(*words, *(() if words[0] == "atack" else ("--out", place / "out")))
    assert (ran.code, ran.out) == (2, "")
    assert "Traceback" not in ran.err
    for name in names:
        assert name in ran.flat
    assert entries(place) == before


# The output folder: 2


def test_out_below_a_file(place):
    (place / "file").write_text("mine")
    ran = robaudit("attack", ROBUST, *QUICK, "--quiet", "--out", place / "file" / "report")
    check_message(ran, 2, [place / "file" / "report"])
    assert (place / "file").read_text() == "mine"


def test_out_is_a_file(place):
    (place / "file").write_text("mine")
    ran = robaudit("attack", ROBUST, *QUICK, "--quiet", "--out", place / "file")
    check_message(ran, 2, [place / "file", "is a file"])
    assert (place / "file").read_text() == "mine"


def test_out_holds_something_else(place):
    (place / "holiday").mkdir()
    (place / "holiday" / "photo.png").write_text("mine")
    before = entries(place)
    ran = robaudit("attack", ROBUST, *QUICK, "--quiet", "--out", place / "holiday")
    check_message(ran, 2, [place / "holiday", "other files"])
    assert entries(place) == before
    assert (place / "holiday" / "photo.png").read_text() == "mine"


def test_an_earlier_report_outlives_a_refusal(place, five_classes):
    assert robaudit("attack", ROBUST, *QUICK, "--quiet", "--out", place / "out").code == 0
    earlier = (place / "out" / "report.json").read_bytes()
    before = entries(place)
    ran = robaudit("attack", five_classes, *QUICK, "--quiet", "--out", place / "out")
    check_message(ran, 4, ["5 outputs"])
    assert entries(place) == before
    assert (place / "out" / "report.json").read_bytes() == earlier


# The program itself


@pytest.mark.parametrize("words", [("--debug", "attack", "none.pt"), ("attack", "none.pt")])
def test_the_program_exits_as_the_command_does(words, place):
    """A traceback comes with --debug, and only then."""
    done = subprocess.run(
        [sys.executable, "-m", "robaudit", *words], capture_output=True, text=True, timeout=120,
        cwd=place, env={**os.environ, "PYTHONPATH": str(ROBUST.parents[1])},
    )  # fmt: skip
    assert done.returncode == 4
    assert done.stdout == ""
    assert "robaudit: no such file: none.pt" in done.stderr
    assert ("Traceback" in done.stderr) == ("--debug" in words)


def test_what_nobody_foresaw_is_an_internal_error_with_a_hint(place, monkeypatch):
    def broken(*_, **__):
        raise KeyError("no\nsuch thing")

    monkeypatch.setattr("robaudit.session.session.load", broken)
    ran = robaudit("attack", ROBUST, *QUICK, "--quiet", "--out", place / "out")
    assert (ran.code, ran.out) == (5, "")
    lines = ran.err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("robaudit: internal error: KeyError")
    assert lines[2].startswith("hint: Run again with --debug")
    assert not (place / "out").exists()
