"""Mixed-class probes, and how the work is cut."""

import math

import pytest
import torch
from support.networks import piecewise_linear, smooth, warmed
from torch import nn

from robaudit.curvature import layer_traces, wci
from robaudit.curvature.softmax import logit_curvature_factor, mixed_columns
from robaudit.errors import NotMeasuredError, UsageError


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(5, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])


@pytest.mark.parametrize("name", ["residual", "tokens"])
def test_mixed_class_probes_are_unbiased(name, batch):
    """Mean of 4000 probes an example within 4.5 standard errors of the exact trace.

    With at most 3 layers a network the false-alarm rate is below 3e-5 a network.
    """
    model = warmed(piecewise_linear()[name], (2, 6, 6))
    x, y = batch
    exact = layer_traces(model, x, y, estimator="exact")
    copies = 40
    found = layer_traces(
        model, x.repeat(copies, 1, 1, 1), y.repeat(copies), estimator="gauss-newton", probes=100
    )
    assert found.quantity == "hessian"
    assert found.estimator == "gauss-newton"
    grouped = found.per_example.reshape(copies, len(x), -1)
    error = (grouped.var(0).sum(0) / copies).sqrt() / len(x)
    for (layer, trace), spread in zip(found.layers.items(), error.tolist(), strict=True):
        assert abs(trace.trace - exact.layers[layer].trace) < 4.5 * spread + 1e-12, layer


def test_two_classes_leave_no_noise():
    """For two classes both columns are parallel: every probe is exact or zero, with mean right."""
    z = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    columns = mixed_columns(z, torch.tensor([7]), 4000, seed=3)[:, 0]
    (c,) = logit_curvature_factor(z)[:, 0]
    torch.testing.assert_close(columns.T @ columns, c.outer(c), rtol=0.2, atol=0)


def test_probes_belong_to_examples(batch):
    """An example's probes do not depend on who is in the batch."""
    model = warmed(piecewise_linear()["residual"], (2, 6, 6))
    x, y = batch
    options = {"estimator": "gauss-newton", "probes": 3, "seed": 5}
    whole = layer_traces(model, x, y, **options).per_example
    part = layer_traces(model, x[3:], y[3:], index=torch.tensor([3, 4]), **options).per_example
    torch.testing.assert_close(whole[3:], part, rtol=1e-12, atol=0)


def test_many_classes_are_probed_and_few_are_not(batch):
    x, _ = batch
    y = torch.zeros(len(x)).long()
    for classes, estimator in ((128, "exact"), (129, "gauss-newton")):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.ReLU(), nn.Linear(4, classes))
        found = layer_traces(model.double(), x, y)
        assert found.estimator == estimator
        assert found.quantity == "hessian"


def test_a_smooth_network_gives_the_gauss_newton_quantity(batch):
    model = warmed(smooth()["silu"], (2, 6, 6))
    found = layer_traces(model, *batch, estimator="gauss-newton", probes=2)
    assert found.quantity == "gauss-newton"


@pytest.mark.parametrize("estimator", ["exact", "gauss-newton", "hessian"])
def test_memory_changes_no_result(estimator, batch):
    model = warmed(smooth()["silu"], (2, 6, 6))
    options = {"estimator": estimator, "probes": 2}
    free = layer_traces(model, *batch, **options).per_example
    tight = layer_traces(model, *batch, memory=20_000, **options).per_example
    torch.testing.assert_close(tight, free, rtol=1e-10, atol=1e-14)


def test_too_little_memory_is_refused_with_what_it_takes(batch):
    model = warmed(piecewise_linear()["residual"], (2, 6, 6))
    with pytest.raises(UsageError, match=r"one image needs about \d+ bytes"):
        layer_traces(model, *batch, memory=100)


def test_a_single_class_is_refused(batch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 1)).double()
    with pytest.raises(NotMeasuredError, match=r"\(1, 1\)"):
        layer_traces(model, batch[0], torch.zeros(5).long())


def test_logits_that_overflow_are_said(batch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3)).double()
    x = batch[0].clone()
    x[2] = math.inf
    with pytest.raises(NotMeasuredError, match="1 of 5 images"):
        wci(model, x, batch[1])


def test_named_layers_alone_are_measured(batch):
    model = warmed(piecewise_linear()["residual"], (2, 6, 6))
    everything = layer_traces(model, *batch)
    found = layer_traces(model, *batch, layers=["head", "conv.weight"])
    assert list(found.layers) == ["conv", "head"]
    for layer, trace in found.layers.items():
        assert trace.trace == pytest.approx(everything.layers[layer].trace, rel=1e-12)
    assert found.uncovered == everything.uncovered == ()


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ([], UsageError, "no layer"),
        (["hed"], UsageError, "no layer 'hed'"),
    ],
)
def test_layers_that_cannot_be_meant_are_refused(layers, error, words, batch):
    model = warmed(piecewise_linear()["residual"], (2, 6, 6))
    with pytest.raises(error, match=words) as caught:
        layer_traces(model, *batch, layers=layers)
    assert layers != ["hed"] or "head" in caught.value.advice


def test_a_function_that_is_differentiable_once_is_named(batch):
    """Automatic differentiation would pass it over and call the network piecewise linear."""

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, a):
            ctx.save_for_backward(a)
            return a * a

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            (a,) = ctx.saved_tensors
            return 2 * a * g

    class Square(nn.Module):
        def forward(self, x):
            return Once.apply(x)

    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 4), Square(), nn.Linear(4, 3)).double()
    for estimator in ("auto", "hessian"):
        with pytest.raises(NotMeasuredError, match=r"module '2' \(Square\)") as caught:
            layer_traces(model, *batch, estimator=estimator)
        assert "exact" in caught.value.advice
    assert layer_traces(model, *batch, estimator="exact").quantity == "gauss-newton"
