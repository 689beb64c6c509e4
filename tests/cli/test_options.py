"""Options: where their values come from, and what they choose."""

import json

import numpy as np
import pytest
import torch
from support.console import ROBUST, robaudit

from robaudit.cli.app import command, leaves
from robaudit.data import load_examples
from robaudit.errors import UsageError
from robaudit.toml_file import SECTIONS


def measured(*words, command="attack"):
    ran = robaudit(command, ROBUST, "--json", "--quiet", *words)
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


@pytest.fixture
def config(place):
    """Writes a config file."""

    def write(text):
        (place / "audit.toml").write_text(text)
        return ("--config", "audit.toml")

    return write


# Command line over environment over config over default


def test_config_then_environment_then_command_line(config, monkeypatch):
    words = (*config("eps = 0.25\nn = 8\nsteps = 1\n"),)
    found = measured(*words)
    assert (found["threat"]["eps"], found["data"]["n"]) == (0.25, 8)
    assert found["measurements"][2]["settings"]["steps"] == 1
    monkeypatch.setenv("ROBAUDIT_EPS", "0.5")
    found = measured(*words)
    assert (found["threat"]["eps"], found["data"]["n"]) == (0.5, 8)
    found = measured(*words, "--eps", "1/8", "--n", 9)
    assert (found["threat"]["eps"], found["data"]["n"]) == (0.125, 9)


def test_without_any_of_them_the_default(monkeypatch):
    found = measured("--n", 8, "--steps", 1)
    assert found["threat"] == {"norm": "linf", "eps": 0.15}
    monkeypatch.setenv("ROBAUDIT_EPS", "16/255")
    assert measured("--n", 8, "--steps", 1)["threat"]["eps"] == 16 / 255


@pytest.mark.parametrize("key", ["batch-size", "batch_size"])
def test_config_keys_with_either_dash(key, config):
    found = measured("--n", 8, "--steps", 1, *config(f"{key} = 4\n"))
    assert found["provenance"]["batch_size"] == 4


def test_the_environment_reaches_flags_and_the_config_file(config, monkeypatch):
    config("steps = 1\n")
    for name, value in (("CONFIG", "audit.toml"), ("N", "8"), ("JSON", "1"), ("QUIET", "true")):
        monkeypatch.setenv(f"ROBAUDIT_{name}", value)
    ran = robaudit("attack", ROBUST)
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["data"]["n"], found["measurements"][2]["settings"]["steps"]) == (8, 1)


def test_a_bad_value_from_the_environment_is_refused_like_any_other(monkeypatch):
    monkeypatch.setenv("ROBAUDIT_EPS", "wide")
    ran = robaudit("attack", ROBUST, "--quiet")
    assert (ran.code, ran.out) == (2, "")
    assert "wide" in ran.err


# Every option of every command, as text and as a number, from the file as from the command line


COMMANDS = leaves(command())
CONFIGURED = [name for name, sub in COMMANDS.items() if any(p.name == "config" for p in sub.params)]


def parsed(name, *words):
    """What a command would be told, option by option."""
    arguments = ("a.pt", "b.pt") if name == "compare" else ("a.pt",)
    told = COMMANDS[name].make_context(name, [*arguments, *words]).params
    return {key: repr(value) for key, value in told.items() if key != "config"}


def accepted(name, *words):
    try:
        return parsed(name, *words)
    except Exception as error:
        if not hasattr(error, "show"):  # no usage error
            raise
        return None


@pytest.mark.parametrize("name", CONFIGURED)
def test_an_option_from_the_file_is_what_it_is_on_the_command_line(name, config):
    plain = parsed(name)
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name != "option" or parameter.name in ("help", "config"):
            continue
        spelled = next(word for word in parameter.opts if word.startswith("--"))
        changed = False
        for value in ("text", "1/8", "last-layer", "l2", "swa", "bf16", "csv", 7, 1e-7, True):
            words = [spelled] if value is True else [f"{spelled}={value}"]
            expected = accepted(name, *words)
            if expected is None or (value is True) is not parameter.is_flag:
                continue
            toml = f"'{value}'" if isinstance(value, str) else str(value).lower()
            for key in (spelled[2:], spelled[2:].replace("-", "_")):
                assert parsed(name, *config(f"{key} = {toml}\n")) == expected, (key, toml)
            changed |= expected != plain
        assert changed or plain[parameter.name] != "None", spelled


@pytest.mark.parametrize("values", ["['1/8', 0.25]", "'1/8,0.25'"])
def test_an_option_that_is_given_several_times_takes_a_list(values, config):
    expected = {"[": ["1/8", "0.25"], "'": ["1/8,0.25"]}[values[0]]
    told = COMMANDS["attack"].make_context("attack", ["a.pt", *config(f"eps = {values}\n")])
    assert list(told.params["eps"]) == expected


# Sections


FILE = """
[options]
n = 9
gap = false
[attack]
steps = 3
n = 8
[audit]
preset = "quick"
steps = 7
[gate.metrics."accuracy.clean"]
min = 0.5
"""


def test_a_command_reads_what_all_have_and_its_own_table(config):
    told = {name: parsed(name, *config(FILE)) for name in ("attack", "audit", "wci", "gate")}
    assert (told["attack"]["n"], told["attack"]["steps"]) == ("8", "3")
    assert (told["audit"]["n"], told["audit"]["steps"], told["audit"]["gap"]) == ("9", "7", "False")
    assert "quick" in told["audit"]["preset"]
    assert (told["wci"]["n"], told["wci"]["steps"]) == ("9", "10")
    assert told["gate"] == parsed("gate")


def test_a_table_wins_over_what_all_have_and_the_command_line_over_both(config):
    assert parsed("attack", *config(FILE), "--n", "7")["n"] == "7"
    assert parsed("wci", *config("n = 5\n[options]\nn = 6\n"))["n"] == "6"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[options]\nsede = 1\n", r"\[options\] has no option 'sede'; did you mean 'seed'\?"),
        ("[options]\nsteps = 1\n", r"\[options\] has no option 'steps'"),
        ("[attack]\nstep = 1\n", r"attack has no option 'step'; did you mean 'steps'\?"),
        ("[atack]\nsteps = 1\n", r"attack has no option 'atack'; did you mean 'attack'\?"),
        ("[attack]\nsteps = [1, 2]\n", r"steps must be a single value, not a list"),
    ],
)
def test_what_a_table_may_not_have_is_refused(text, said, config):
    with pytest.raises(UsageError, match=said):
        parsed("attack", *config(text))


def test_there_is_a_table_for_every_command_that_reads_a_file():
    assert {*SECTIONS, "gate"} == {"options", *CONFIGURED}


def test_a_variable_is_named_like_its_option(monkeypatch):
    for name, word, parameter in (("wci", "LAMBDA", "lambda_"), ("landscape", "RANGE", "reach")):
        monkeypatch.setenv(f"ROBAUDIT_{word}", "0.5")
        assert "0.5" in parsed(name)[parameter]


# Which examples


def index_of(*words):
    robaudit("attack", ROBUST, "--quiet", "--steps", 1, "--out", "out", *words)
    return np.load("out/examples.npz")["test.index"].tolist()


def test_sample_draws_by_seed(place):
    assert index_of("--n", 16) == list(range(16))
    drawn = index_of("--n", 16, "--sample", "--seed", 3)
    assert drawn != list(range(16))
    assert len(set(drawn)) == 16
    assert set(drawn) <= set(range(500))
    assert index_of("--n", 16, "--sample", "--seed", 3) == drawn
    assert index_of("--n", 16, "--sample", "--seed", 4) != drawn
    assert set(drawn) < set(index_of("--n", 17, "--sample", "--seed", 3))


@pytest.mark.parametrize("split", ["test", "train"])
def test_split(split):
    found = measured("--n", 8, "--steps", 1, "--split", split)
    expected = load_examples("digits", split=split, n=8).sha256
    assert (found["data"]["split"], found["data"]["sha256"]) == (split, expected)
    assert {m["split"] for m in found["measurements"]} == {split}


def test_no_gap_measures_one_split():
    found = measured("--n", 8, "--steps", 1, "--no-gap", command="wci")
    assert found["train_data"] is None
    assert {m["split"] for m in found["measurements"]} == {"test"}


def test_train_data_takes_the_place_of_the_training_split(place):
    train = load_examples("digits", split="train", n=20)
    np.savez(place / "train.npz", x=train.x[8:].numpy(), y=train.y[8:].numpy())
    words = ("--n", 8, "--steps", 1)
    found = measured(*words, "--train-data", "train.npz", command="wci")
    assert (found["train_data"]["name"], found["train_data"]["n"]) == ("train.npz", 8)
    assert found["train_data"]["split"] == "train"
    assert [m["name"] for m in found["measurements"] if m["split"] == "gap"] == [
        "gap.error", "gap.loss",
    ]  # fmt: skip


def test_data_without_a_training_split_is_measured_without_gaps(place):
    test = load_examples("digits", n=8)
    np.savez(place / "data.npz", x=test.x.numpy(), y=test.y.numpy())
    words = ("wci", ROBUST, "--data", "data.npz", "--eps", 0.15, "--steps", 1, "--json")
    ran = robaudit(*words)
    found = json.loads(ran.out)
    assert ran.code == 0
    assert "no generalisation gaps" in ran.err
    assert {m["split"] for m in found["measurements"]} == {"test"}
    # Images and labels are those of digits, and so are the numbers.
    own = measured("--n", 8, "--steps", 1, "--no-gap", command="wci")
    assert found["data"]["sha256"] == own["data"]["sha256"]
    assert [m["value"] for m in found["measurements"]] == [
        m["value"] for m in own["measurements"]
    ]  # fmt: skip


# What is measured


def test_attack_takes_a_list():
    found = measured("--n", 8, "--steps", 2, "--attack", "cw, pgd")
    assert [m["name"] for m in found["measurements"]] == [
        "accuracy.clean", "loss.clean", "accuracy.pgd", "loss.robust", "accuracy.cw",
    ]  # fmt: skip


def test_step_size_is_in_units_of_pixels():
    found = measured("--n", 8, "--steps", 1, "--eps", 0.2, "--step-size", 0.03)
    assert found["measurements"][2]["settings"]["step_size"] == pytest.approx(0.03, rel=1e-12)
    found = measured("--n", 8, "--steps", 1, "--eps", 0.2)
    assert found["measurements"][2]["settings"]["step_size"] == pytest.approx(0.05, rel=1e-12)


def test_more_restarts_and_steps_never_help_the_network():
    one = measured("--n", 32, "--steps", 2)["measurements"][3]["value"]
    more = measured("--n", 32, "--steps", 2, "--restarts", 3)["measurements"][3]["value"]
    assert more >= one
    assert measured("--n", 32, "--steps", 2, "--eps", 0.3)["measurements"][3]["value"] > one


def test_normalize_changes_what_the_network_sees(place, linear):
    """Logits V((x - 0.5) / 0.25) + c are those of weights 4 V and bias c - 2 V 1."""
    words = ("--arch", "net.py:linear", "--n", 8, "--steps", 1, "--json", "-q")
    state = torch.load(linear, weights_only=True)
    weight, bias = state["1.weight"], state["1.bias"]
    apart = {"1.weight": weight / 4, "1.bias": bias + weight.sum(1) / 2}
    torch.save(apart, "apart.pt")
    inside = json.loads(robaudit("attack", "apart.pt", "--normalize", "0.5;0.25", *words).out)
    folded = json.loads(robaudit("attack", linear, "--normalize", "none", *words).out)
    assert inside["subject"]["normalization"] == "0.5;0.25"
    for a, b in zip(inside["measurements"], folded["measurements"], strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-4)  # float32 in another order


def test_flatness_and_hessian_measure_what_they_say():
    found = measured(
        "--n", 8, "--steps", 1, "--perturbations", 1, "--worst-restarts", 1, command="flatness"
    )
    names = [m["name"] for m in found["measurements"]]
    assert names[-2:] == ["flatness.average", "flatness.worst"]
    found = measured(
        "--n", 8, "--steps", 1, "--top", 2, "--probes", 1, "--lanczos-steps", 3, command="hessian"
    )
    values = {m["name"]: m for m in found["measurements"]}
    unmeasured = {name for name, m in values.items() if m["status"] != "ok"}
    assert unmeasured == {"pacbayes.bound"}  # which is of the training split
    assert len(values["hessian.largest"]["details"]["eigenvalues"]) == 2
    assert values["hessian.smallest"]["value"] < values["hessian.largest"]["value"]
    assert values["hessian.largest"]["warnings"], "three steps are too few, and it must say so"


def test_float64_is_of_curvature():
    found = measured("--n", 8, "--steps", 1, "--no-gap", "--precision", "float64", command="wci")
    wci = next(m for m in found["measurements"] if m["name"] == "wci")
    assert wci["details"]["precision"] == "float64"
    ran = robaudit("attack", ROBUST, "--n", 8, "--precision", "float64", "-q")
    assert ran.code == 2
    assert "wci or hessian" in ran.err
