"""Checkpoints of one layer, and a run of a few of them."""

import os

import pytest
import torch
from support.batch_runs import linear_network

from robaudit.batch.jobs import Job
from robaudit.batch.listing import rows_of

NETWORKS = '''
import os, signal, time
from torch import nn


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


class Deadly(nn.Sequential):
    """Kills whoever runs it, as the system does when memory runs out."""

    def forward(self, x):
        os.kill(os.getpid(), signal.SIGKILL)


def deadly():
    return Deadly(nn.Flatten(), nn.Linear(64, 10))


class Hanging(nn.Sequential):
    def forward(self, x):
        time.sleep(1000)


def hanging():
    return Hanging(nn.Flatten(), nn.Linear(64, 10))
'''


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("ROBAUDIT_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """``a.pt``, ``b.pt`` and ``c.pt``, each of other weights, and ``nets.py`` beside them."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "nets.py").write_text(NETWORKS)
    for seed, name in enumerate("abc"):
        torch.save(linear_network(seed), folder / f"{name}.pt")
    return folder


@pytest.fixture
def job(models):
    """Makes a job of a model's file; keywords replace its settings."""

    def make(name, **said):
        common = {"data": "digits", "norm": "linf", "eps": 0.1, "preset": "quick", "n": 12}
        common |= {"gap": False, "normalize": "none", "arch": f"{models / 'nets.py'}:linear"}
        return Job(source=str(models / name), **{**common, **said})

    return make


@pytest.fixture
def rows(job):
    """Rows of the named models' jobs."""
    return lambda *names, **said: rows_of([job(name, **said) for name in names])
