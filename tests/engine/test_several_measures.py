"""Curvature and flatness on several devices have the numbers of one."""

import threading
import warnings

import pytest
import torch
from support.attacks import examples, network
from support.recorders import noted_rounds, noted_threads
from torch import nn

from robaudit import curvature, flatness
from robaudit.curvature.products import block_products, gauss_newton_product, hessian_product
from robaudit.engine import frozen, spread
from robaudit.flatness.joint_ascent import JointAscent
from robaudit.types import ThreatModel

CPU = torch.device("cpu")
BALL = ThreatModel("linf", 0.08)


@pytest.fixture
def threads(monkeypatch):
    return noted_threads(monkeypatch)


@pytest.fixture
def rounds(monkeypatch):
    return noted_rounds(monkeypatch)


def two(model=None):
    return spread(network() if model is None else model, (CPU, CPU))


def test_flatness_shares_perturbed_networks(threads):
    x, y = examples(network(), 300)
    how = {"perturbations": 3, "steps": 2, "seed": 1}
    alone = flatness.average(network(), x, y, BALL, **how)
    assert threads == {"MainThread"}
    shared = flatness.average(two(), x, y, BALL, **how)
    assert (shared.value, shared.perturbed) == (alone.value, alone.perturbed)
    assert len(threads) == 2


@pytest.mark.parametrize(
    ("protocol", "precision"),
    [("default", "fp32"), ("default", "bf16"), ("stutz2021", "fp32"), ("stutz2021-text", "fp32")],
)
def test_worst_case_flatness_shares_restarts(protocol, precision, rounds, monkeypatch):
    x, y = examples(network(), 150)
    where, usual = set(), JointAscent._pass

    def noted(self, *args, **kwargs):
        where.add(threading.current_thread().name)
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(JointAscent, "_pass", noted)
    how = {"passes": 2, "restarts": 3, "steps": 2, "xi": 0.05, "seed": 2}
    how |= {"protocol": protocol, "precision": precision}
    alone = flatness.worst(network(), x, y, BALL, **how)
    assert where == {"MainThread"}
    told = []
    shared = flatness.worst(two(), x, y, BALL, **how, progress=lambda *done: told.append(done))
    assert len(where) == 2
    assert (shared.value, shared.restarts) == (alone.value, alone.restarts)
    assert (shared.searched, shared.nu.keys()) == (precision, alone.nu.keys())
    assert all(torch.equal(moved, alone.nu[name]) for name, moved in shared.nu.items())
    assert told[-3:] == [(2, 6), (4, 6), (6, 6)]


def test_adaptive_sharpness_shares_groups_and_images(rounds):
    x, y = examples(network(), 150)
    told = []

    def found(model):
        worst = flatness.adaptive_worst(
            model, x, y, m=40, steps=2, progress=lambda *done: told.append(done)
        )
        average = flatness.adaptive_average(model, x, y, perturbations=2)
        return worst.groups, worst.value, average.value, average.perturbed

    alone, begun = found(network()), len(told)
    assert not rounds or set(rounds) == {1}
    assert found(two()) == alone
    assert rounds.count(2) >= 2 + 3  # of four groups; of three networks with three tiles each
    for some in (told[:begun], told[begun:]):
        assert some == sorted(some)
        assert some[-1] == (150, 150)


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton", "blocks"])
def test_products_of_curvature_matrices(kind, monkeypatch):
    x, y = examples(network(), 200)
    size = sum(p.numel() for p in network().parameters())
    v = torch.randn(size, generator=torch.Generator().manual_seed(0))
    names = set()
    usual = torch.autograd.grad

    def noted(*args, **kwargs):
        names.add(threading.current_thread().name)
        return usual(*args, **kwargs)

    monkeypatch.setattr("torch.autograd.grad", noted)

    def product(model):
        with frozen(model):
            if kind == "blocks":
                return block_products(model, x, y, v)
            if kind == "hessian":
                return hessian_product(model, x, y)(v)
            return gauss_newton_product(model, x)(v)

    alone = product(network())
    assert names == {"MainThread"}
    assert torch.equal(product(two()), alone)
    assert len(names) == 2


class Attending(nn.Module):
    """An attention whose projections are measured one example at a time, and a convolution."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.head = nn.Conv2d(1, 8, 4, stride=4), nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


TRACES = {
    "exact": (network, {"estimator": "exact"}),
    "bf16": (network, {"estimator": "exact", "precision": "bf16"}),
    "float64": (network, {"precision": "float64"}),
    "gauss-newton": (network, {"estimator": "gauss-newton"}),
    "hessian": (network, {"estimator": "hessian"}),
    "attention": (Attending, {}),
    "attention, exact": (Attending, {"estimator": "exact"}),
}


@pytest.mark.parametrize("name", TRACES)
def test_traces(name, rounds):
    make, how = TRACES[name]
    x, y = examples(network(), 160 if name == "bf16" else 70)
    alone = curvature.layer_traces(make(), x, y, **how)
    assert not rounds or set(rounds) == {1}
    filters = list(warnings.filters)
    shared = curvature.layer_traces(two(make()), x, y, **how)
    assert warnings.filters == filters
    assert 2 in rounds
    assert torch.equal(shared.per_example, alone.per_example)
    assert (shared.layers, shared.precision) == (alone.layers, alone.precision)
    if name == "bf16":
        assert (shared.precision, rounds[-2:]) == ("bf16", [2, 2])


def test_spectra_of_networks_that_are_copied_first():
    """Weight norm is made plain, in a copy that runs on the same devices."""
    x, y = examples(network(), 130)

    def model():
        made = network()
        made[0] = nn.utils.parametrizations.weight_norm(made[0])
        return made

    how = {"top": 2, "seed": 1}
    alone, shared = (curvature.spectrum(m, x, y, **how) for m in (model(), two(model())))
    assert (shared.largest, shared.smallest, shared.trace) == (
        alone.largest,
        alone.smallest,
        alone.trace,
    )
