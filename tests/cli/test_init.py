"""A first robaudit.toml: options and a policy that a first audit has checked."""

import io
import tomllib

import pytest
import torch
from support.console import ROBUST, robaudit
from torch import nn

from robaudit.data import load_examples


class Terminal(io.StringIO):
    def isatty(self):
        return True


def read(path):
    return tomllib.loads(path.read_text("utf-8"))


@pytest.fixture
def bare(place):
    """Weights of a network that only its code can tell, fitted by ridge regression."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    digits = load_examples("digits", split="train")
    inputs = torch.cat([digits.x.flatten(1), torch.ones(len(digits), 1)], 1).double()
    wanted = nn.functional.one_hot(digits.y, 10).double()
    normal = inputs.T @ inputs + torch.eye(65, dtype=torch.float64)
    solved = torch.linalg.solve(normal, inputs.T @ wanted).float()
    network[1].weight.data, network[1].bias.data = solved[:-1].T.contiguous(), solved[-1]
    torch.save(network.state_dict(), place / "bare.pt")
    return place / "bare.pt"


@pytest.mark.slow
def test_the_file_serves_every_command_and_its_policy_passes(place):
    made = robaudit("init", ROBUST, "--quiet", "--device", "cpu")
    assert (made.code, made.err) == (0, "")
    file = read(place / "robaudit.toml")
    assert file["options"] == {"data": "digits", "norm": "linf", "eps": "0.15"}
    assert {"accuracy.clean", "accuracy.pgd", "accuracy.fast"} <= set(file["gate"]["metrics"])
    assert robaudit("gate", ROBUST, "--quiet").code == 0
    ran = robaudit("attack", ROBUST, "--config", "robaudit.toml", "--n", 8, "--attack", "clean")
    assert ran.code == 0, ran.err


def test_what_was_said_stands_in_the_file(bare, place):
    given = ("--arch", "net.py:linear", "--normalize", "none", "--data", "digits")
    made = robaudit("init", bare, *given, "--eps", "8/255", "--quiet", "--file", "own.toml")
    assert made.code == 0, made.err
    assert read(place / "own.toml")["options"] == {
        "arch": "net.py:linear",
        "normalize": "none",
        "data": "digits",
        "norm": "linf",
        "eps": "8/255",
    }
    assert read(place / "own.toml")["gate"]["arch"] == "net.py:linear"
    assert robaudit("gate", bare, "--policy", "own.toml", "--quiet").code != 4


def test_on_a_terminal_it_asks_for_what_the_checkpoint_does_not_tell(bare, place, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal("none\n"))
    made = robaudit("init", bare, "--data", "digits", "--quiet", stderr=Terminal())
    assert made.code == 0, made.err
    assert read(place / "robaudit.toml")["options"]["normalize"] == "none"
    assert "do not tell which normalisation" in made.err


@pytest.mark.parametrize("stdin", [Terminal("\n\n"), io.StringIO("none\n")])
def test_without_an_answer_the_refusal_stands(bare, place, monkeypatch, stdin):
    monkeypatch.setattr("sys.stdin", stdin)
    made = robaudit("init", bare, "--data", "digits", "--quiet", stderr=Terminal())
    assert made.code == 4
    assert not (place / "robaudit.toml").exists()


def test_a_file_that_is_there_is_kept(place):
    (place / "robaudit.toml").write_text("mine")
    made = robaudit("init", ROBUST)
    assert made.code == 2
    assert "there already" in made.err
    assert (place / "robaudit.toml").read_text() == "mine"
