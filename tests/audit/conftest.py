"""A sample network on a few digits, under the samples' threat model."""

import pytest
from support.console import ROBUST
from torch import nn

from robaudit.checkpoints import load
from robaudit.data import load_examples
from robaudit.types import ThreatModel


@pytest.fixture(scope="session")
def robust():
    return load(ROBUST, device="cpu")


@pytest.fixture
def threat():
    return ThreatModel("linf", 0.15)


@pytest.fixture(scope="session")
def few():
    """Thirty-two test examples."""
    return load_examples("digits", n=32)


@pytest.fixture(scope="session")
def train():
    return load_examples("digits", split="train", n=32)


@pytest.fixture
def numbers():
    """Everything in a report but what a clock measures."""

    def of(report):
        return [m.model_copy(update={"seconds": None}) for m in report.measurements]

    return of


class Small(nn.Module):
    """A convolution, a batch norm, dropout, a linear layer: all that differs in training mode."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(144, 10)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.conv(x)).relu().flatten(1)))


@pytest.fixture
def small():
    return Small
