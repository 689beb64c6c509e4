"""Curvature is that of the weights a network computes with, pruned entries and idle ones left out.

Held against the same network written out with plain weights, and against its dense Hessian in
float64 without the rows and columns of pruned entries.
"""

import pytest
import torch
from support.dense import dense_block, dense_full
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from robaudit.checkpoints.architectures.residual_families import wide_resnet
from robaudit.curvature import (
    gram_spectrum,
    largest_eigenvalue,
    layer_spreads,
    layer_traces,
    pyhessian,
    small_spectrum,
    spectrum,
    top_layer_trh,
    wci,
)
from robaudit.errors import NotMeasuredError


def net(activation=nn.ReLU, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), activation(), nn.Flatten(), nn.Linear(48, 5), activation(),
        nn.Linear(5, 3),
    ).double()  # fmt: skip


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])


def weight_norm(model):
    parametrizations.weight_norm(model[0])
    parametrizations.weight_norm(model[3])


def old_weight_norm(model):
    nn.utils.weight_norm(model[3])


def spectral_norm(model):
    parametrizations.spectral_norm(model[3])
    nn.utils.spectral_norm(model[5])


def orthogonal(model):
    parametrizations.orthogonal(model[3])


def by_hand(model):
    """The network with the weights its modules hold after a pass, in plain modules."""
    model.eval()(torch.rand(1, 1, 4, 4, dtype=torch.float64))
    plain = net()
    with torch.no_grad():
        for to, of in zip(plain, model, strict=True):
            if hasattr(to, "weight"):
                to.weight.copy_(of.weight)
                to.bias.copy_(of.bias)
    return plain


@pytest.mark.parametrize("change", [weight_norm, old_weight_norm, spectral_norm, orthogonal])
def test_everything_is_that_of_the_plain_network(change, batch):
    model = net()
    change(model)
    plain = by_hand(model)
    x, y = batch
    for layers in (None, "all"):
        found, want = (wci(m, x, y, layers=layers) for m in (model, plain))
        assert found.value == pytest.approx(want.value, rel=1e-10)
        assert [row.name for row in found.layers] == [row.name for row in want.layers]
        assert found.traces.uncovered == ()
        assert found.traces.notes
        assert not want.traces.notes
    # The plain network's own dense Hessian.
    eigenvalues = torch.linalg.eigvalsh(dense_full(plain, x, y))
    ends = spectrum(model, x, y, top=1, tolerance=1e-8)
    assert ends.largest[0] == pytest.approx(float(eigenvalues[-1]), rel=1e-6)
    assert ends.dimension == len(eigenvalues)
    assert ends.notes
    assert largest_eigenvalue(model, x, y).value == pytest.approx(float(eigenvalues[-1]), rel=1e-3)
    spreads, wanted = (layer_spreads(m, x, y, probes=3)["3"].deviation for m in (model, plain))
    assert spreads == pytest.approx(wanted, rel=1e-10)
    tops = [top_layer_trh(m, x, x, y).value for m in (model, plain)]
    assert tops[0] == pytest.approx(tops[1], rel=1e-10)
    theirs = [pyhessian(m, x, y).eigenvalues[0] for m in (model, plain)]
    assert theirs[0] == pytest.approx(theirs[1], rel=1e-2)  # its own tolerance is 1e-3


class UsedTwice(nn.Module):
    """A parametrised weight is called as a module and used as a function."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 6)
        self.middle = parametrizations.weight_norm(nn.Linear(6, 6))
        self.last = nn.Linear(6, 3)

    def forward(self, x):
        z = F.relu(self.first(x.flatten(1)))
        return self.last(self.middle(z) + F.linear(z.flip(1), self.middle.weight))


def test_a_parametrised_weight_that_is_used_as_a_function_too(batch):
    torch.manual_seed(2)
    model = UsedTwice().double()
    plain = UsedTwice().double()
    nn.utils.parametrize.remove_parametrizations(plain.middle, "weight")
    with torch.no_grad():
        plain.middle.weight.copy_(model.middle.weight)
        plain.middle.bias.copy_(model.middle.bias)
    plain.first, plain.last = model.first, model.last
    found = layer_traces(model, *batch)
    assert (found.quantity, found.estimator) == ("hessian", "exact")
    want = float(dense_block(plain, *batch, "middle.weight").trace())
    assert found.layers["middle"].trace == pytest.approx(want, rel=1e-10)


def pruned(activation=nn.ReLU):
    """Random masks on two layers and a bias."""
    model = net(activation)
    prune.random_unstructured(model[0], "weight", 0.3)
    prune.l1_unstructured(model[3], "weight", 0.6)
    prune.l1_unstructured(model[3], "bias", 2)
    model.eval()(torch.rand(1, 1, 4, 4, dtype=torch.float64))
    return model


def kept(model):
    """Which numbers are left, in the order of the plain network's parameters."""
    masks = [
        getattr(module, f"{name}_mask").bool() if hasattr(module, f"{name}_mask")
        else torch.ones_like(getattr(module, name), dtype=torch.bool)
        for module in model if hasattr(module, "weight") for name in ("weight", "bias")
    ]  # fmt: skip
    return torch.cat([mask.flatten() for mask in masks])


@pytest.mark.parametrize(("activation", "probes"), [(nn.ReLU, 1), (nn.SiLU, 60)])
def test_traces_of_a_pruned_network_are_over_what_is_left(activation, probes, batch):
    model = pruned(activation)
    plain = by_hand(model)
    for place in (1, 4):
        plain[place] = activation()
    found = layer_traces(model, *batch, layers="all", probes=probes)
    assert found.quantity == "hessian"
    assert any("stay zero" in note for note in found.notes)
    for name in ("0.weight", "0.bias", "3.weight", "3.bias", "5.weight", "5.bias"):
        module, part = model[int(name[0])], name[2:]
        diagonal = dense_block(plain, *batch, name).diagonal()
        mask = getattr(module, f"{part}_mask", torch.ones(len(diagonal))).flatten()
        row = found.layers[name.removesuffix(".weight")]
        slack = 5 * row.standard_error if probes > 1 else 0
        assert row.trace == pytest.approx(float(diagonal @ mask.double()), rel=1e-10, abs=slack)
        # What the pruned entries would add is no rounding error.
        assert mask.all() or abs(float(diagonal @ (1 - mask.double()))) > 1e-4


def test_a_pruned_network_s_spectrum_is_of_what_is_left(batch):
    x, y = batch
    model = pruned()
    plain, left = by_hand(model), kept(model)
    dense = dense_full(plain, x, y)[left][:, left]
    eigenvalues = torch.linalg.eigvalsh(dense)
    found = spectrum(model, x, y, top=2, tolerance=1e-8, steps=200)
    assert found.dimension == len(dense) == int(left.sum())
    assert found.largest[:2] == pytest.approx(eigenvalues.flip(0)[:2].tolist(), rel=1e-6)
    assert found.smallest == pytest.approx(float(eigenvalues[0]), rel=1e-5, abs=1e-9)
    largest = largest_eigenvalue(model, x, y, tolerance=1e-6).value
    assert largest == pytest.approx(float(eigenvalues[-1]), rel=1e-5)
    gram = gram_spectrum(model, x)
    assert small_spectrum(model, x).dimension == len(dense)
    alone = layer_traces(model, x, y, layers="all", estimator="exact").total
    assert float(gram.sum()) == pytest.approx(alone, rel=1e-10)
    block = dense_block(plain, x, y, "3.weight")
    mask = model[3].weight_mask.bool().flatten()
    own = torch.linalg.eigvalsh(block[mask][:, mask])
    spread = layer_spreads(model, x, y, probes=200)["3"]
    assert spread.dimension == int(mask.sum())
    assert abs(spread.mean - float(own.mean())) < 5 * spread.mean_standard_error
    assert abs(spread.deviation - float(own.std(correction=0))) < 5 * spread.standard_error


def test_what_knows_no_pruning_says_so(batch):
    model = pruned()
    with pytest.raises(NotMeasuredError, match="pruned"):
        pyhessian(model, *batch)
    prune.random_unstructured(model[5], "weight", 0.2)
    with pytest.raises(NotMeasuredError, match="pruned"):
        top_layer_trh(model, batch[0], *batch)


def test_a_layer_that_no_pass_uses_counts_nowhere_and_is_named(batch):
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = net()
            self.never = nn.Linear(30, 30)
            self.loose = nn.Parameter(torch.ones(4, 4))

        def forward(self, x):
            return self.own(x)

    torch.manual_seed(5)
    model = Idle().double()
    for layers in (None, "all"):
        found = wci(model, *batch, layers=layers)
        want = wci(model.own, *batch, layers=layers)
        assert found.value == pytest.approx(want.value, rel=1e-12)
        assert found.bound == pytest.approx(want.bound, rel=1e-12)
        assert "never" in found.traces.idle
        assert any("never" in note for note in found.traces.notes)
        assert found.traces.uncovered == ()
    ends = spectrum(model, *batch, top=1)
    assert ends.dimension == sum(p.numel() for p in model.own.parameters())
    with pytest.raises(NotMeasuredError, match="no pass uses never"):
        layer_traces(model, *batch, layers=["never"])
    with pytest.raises(NotMeasuredError, match="no pass uses never"):
        spectrum(model, *batch, layers=["never"])


def test_the_sub_block_of_a_wide_resnet_is_idle():
    """Some checkpoints hold a block that is never called; the bound counted its weights."""
    torch.manual_seed(0)
    model = wide_resnet(10, 1, classes=3, sub_block=1).eval()
    x, y = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 2])
    found = wci(model, x, y)
    assert found.traces.idle
    assert all(name.startswith("sub_block1") for name in found.traces.idle)
    squares = sum(row.frobenius**2 for row in found.layers)
    called = sum(
        float(p.detach().square().sum())
        for name, p in model.named_parameters()
        if p.dim() >= 2 and not name.startswith("sub_block1")
    )
    assert squares == pytest.approx(called, rel=1e-6)
