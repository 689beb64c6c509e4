"""A place to work in, networks of one layer, and checkpoints for them."""

import os

import pytest
import torch
from support.console import ROBUST, robaudit
from support.gates import HEAD
from torch import nn

from robaudit.data import load_examples

NETWORKS = '''
import torch
from torch import nn


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def five():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))


def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(49, 10))


def deep():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 10))


def softmax():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Softmax(1))


class OnDataAlone(nn.Sequential):
    """NaN wherever a pixel is none of the digits' seventeen grey levels, as under attack."""

    def forward(self, x):
        levels = 16 * x.flatten(1)
        off = (levels - levels.round()).abs().amax(1, keepdim=True) > 1e-3
        return torch.where(off, torch.nan, super().forward(x))


def fragile():
    return OnDataAlone(nn.Flatten(), nn.Linear(64, 10))
'''


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    """No options from the environment of whoever runs the tests; no colours, wide lines."""
    for name in [*os.environ]:
        if name.startswith("ROBAUDIT_") or name in ("FORCE_COLOR", "PY_COLORS"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORKS)
    return tmp_path


@pytest.fixture
def gate(place):
    """Runs the gate by a policy on the digits."""

    def of(policy, *words, checkpoint=ROBUST):
        (place / "robaudit.toml").write_text(HEAD + policy)
        return robaudit("gate", checkpoint, "--quiet", *words)

    return of


@pytest.fixture(scope="session")
def robust_state():
    return torch.load(ROBUST, weights_only=True)


@pytest.fixture
def five_classes(place, robust_state):
    """A digits_resnet with five outputs."""
    path = place / "five.pt"
    heads = {key: value[:5] for key, value in robust_state.items() if key.startswith("head.")}
    torch.save({**robust_state, **heads}, path)
    return path


@pytest.fixture
def linear(place):
    """Weights of one layer, as nn.Sequential names them: least squares on the training digits."""
    path = place / "linear.pt"
    digits = load_examples("digits", split="train")
    features = torch.cat([digits.x.flatten(1), torch.ones(len(digits.x), 1)], 1)
    fit = torch.linalg.lstsq(features, nn.functional.one_hot(digits.y, 10).float(), driver="gelsd")
    weights = fit.solution.T
    torch.save({"1.weight": weights[:, :-1].clone(), "1.bias": weights[:, -1].clone()}, path)
    return path


@pytest.fixture
def nameless(place):
    """Weights under names that are no known network's."""
    path = place / "nameless.pt"
    torch.save({"mine.weight": torch.zeros(10, 64), "bias": torch.zeros(10)}, path)
    return path


@pytest.fixture(scope="session")
def audited(tmp_path_factory):
    """A report folder with a layer table and gaps, and what the command printed as JSON."""
    folder = tmp_path_factory.mktemp("audited") / "report"
    ran = robaudit("wci", ROBUST, "--n", 32, "--out", folder, "--device", "cpu", "--json", "-q")
    assert (ran.code, ran.err) == (0, "")
    return folder, ran.out
