import math

import pytest
import torch
from support.dense import dense_block, mean_loss
from support.networks import piecewise_linear, smooth, warmed

from robaudit.curvature import pac_bayes
from robaudit.errors import NotMeasuredError, UsageError

torch.manual_seed(4)
NETWORKS = {**piecewise_linear(), **smooth()}


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0, 2])


def test_every_term_from_dense_hessians(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    traces = {name: float(dense_block(model, *batch, name).trace()) for name in weights}
    norms = {name: float(p.detach().norm()) for name, p in weights.items()}
    found = pac_bayes(model, *batch, beta=50, s0=0.2, lambda_=7, chunk=4)
    assert found.loss.value == pytest.approx(mean_loss(model, *batch)({}).item())
    assert found.weights.value == pytest.approx(sum(v**2 for v in norms.values()) / (100 * 0.04))
    assert found.curvature.value == pytest.approx(0.02 * sum(traces.values()))
    total = found.loss.value + found.weights.value + found.curvature.value
    assert found.bound.value == pytest.approx(total)
    index = sum(norms[name] * traces[name] ** 0.5 for name in weights)
    assert found.index.value == pytest.approx(math.sqrt(2 / 7) * index)
    # Theorem 2.5's proof: with these deviations its two sums are equal, and together the index.
    squares = {f"{name}.weight": sigma**2 for name, sigma in found.deviations.items()}
    divergence = sum(norms[name] ** 2 / (2 * 7 * squares[name]) for name in weights)
    variability = sum(traces[name] * squares[name] for name in weights)
    assert divergence == pytest.approx(variability)
    assert divergence + variability == pytest.approx(found.index.value)


def test_errors_are_those_of_means_over_examples(batch):
    """An example's share of the bound is its loss and its own trace, which are correlated."""
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    whole = pac_bayes(model, *batch, beta=50, s0=0.5)
    alone = [
        pac_bayes(model, batch[0][i : i + 1], batch[1][i : i + 1], beta=50, s0=0.5)
        for i in range(6)
    ]
    for term in ("loss", "curvature", "bound"):
        values = torch.tensor([getattr(one, term).value for one in alone], dtype=torch.float64)
        found = getattr(whole, term)
        assert found.value == pytest.approx(float(values.mean()))
        assert found.standard_error == pytest.approx(float(values.std()) / 6**0.5)
    assert whole.weights.standard_error == 0


def test_its_constants_by_default(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    found = pac_bayes(model, *batch)
    assert (found.beta, found.lambda_, found.s0) == (6.0, 6.0, pytest.approx(72**-0.5))


@pytest.mark.parametrize("constant", ["beta", "s0", "lambda_"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_constants_that_are_no_positive_number_are_refused(constant, value, batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    with pytest.raises(UsageError, match="must be a positive number"):
        pac_bayes(model, *batch, **{constant: value})


def test_a_loss_that_is_not_finite_is_not_measured(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    x = batch[0].clone()
    x[0] = torch.nan
    with pytest.raises(NotMeasuredError, match="not finite on 1 of 6"):
        pac_bayes(model, x, batch[1])
