import math

import pytest
import torch
from support.dense import dense_block
from support.networks import piecewise_linear, smooth, warmed
from torch import nn

from robaudit.curvature import layer_traces, wci
from robaudit.curvature.softmax import logit_curvature_factor
from robaudit.curvature.traces import LayerTrace, LayerTraces
from robaudit.curvature.wci import from_traces
from robaudit.errors import NotMeasuredError


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(5, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])


@pytest.mark.parametrize("name", piecewise_linear())
def test_exact_traces_equal_the_dense_hessian(name, batch):
    model = warmed(piecewise_linear()[name], (2, 6, 6))
    x, y = batch
    found = layer_traces(model, x, y)
    assert found.quantity == "hessian"
    assert found.estimator == "exact"
    for layer, trace in found.layers.items():
        dense = dense_block(model, x, y, f"{layer}.weight").trace().item()
        assert trace.trace == pytest.approx(dense, rel=1e-10, abs=1e-13), layer


@pytest.mark.parametrize("name", smooth())
def test_smooth_networks_are_told_apart(name, batch):
    model = warmed(smooth()[name], (2, 6, 6))
    found = layer_traces(model, *batch, probes=1)
    assert found.estimator == "hessian"
    assert found.bent
    exact = layer_traces(model, *batch, estimator="exact")
    assert exact.quantity == "gauss-newton"


@pytest.mark.parametrize("name", smooth())
def test_output_probes_are_unbiased(name, batch):
    """Mean of 4000 probes within 4.5 standard errors of the dense trace, on every layer.

    With at most 4 layers a network the false-alarm rate is below 3e-5 a network.
    """
    model = warmed(smooth()[name], (2, 6, 6))
    x, y = batch
    copies = 400
    many_x, many_y = x.repeat(copies, 1, 1, 1), y.repeat(copies)
    found = layer_traces(model, many_x, many_y, estimator="hessian", probes=10)
    # Examples repeat, so the error is the probes' own: within-example spread, not over examples.
    grouped = found.per_example.reshape(copies, len(x), -1)
    error = grouped.std(0) / math.sqrt(copies) / len(x)
    for at, (layer, trace) in enumerate(found.layers.items()):
        dense = dense_block(model, x, y, f"{layer}.weight").trace().item()
        spread = float(error[:, at].square().sum().sqrt())
        assert abs(trace.trace - dense) < 4.5 * spread + 1e-12, layer


def test_gauss_newton_trace_of_a_smooth_network(batch):
    """Against sum_c ||J^T s_c||^2 with the Jacobian written out."""
    model = warmed(smooth()["silu"], (2, 6, 6))
    x, y = batch
    found = layer_traces(model, x, y, estimator="exact")
    for layer in found.layers:
        weight = model.get_parameter(f"{layer}.weight")
        want = 0.0
        for image in x:
            logits = model(image[None])[0]
            jacobian = torch.stack(
                [torch.autograd.grad(z, weight, retain_graph=True)[0].flatten() for z in logits]
            )
            p = logits.softmax(0)
            want += float((jacobian.T @ (p.diag() - p.outer(p)) @ jacobian).trace().detach()) / len(
                x
            )
        assert found.layers[layer].trace == pytest.approx(want, rel=1e-10)


def test_shared_layer_called_twice_sums_its_gradients(batch):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(72, 4)
            self.again = nn.Linear(4, 4)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            hidden = torch.relu(self.again(torch.relu(self.first(x.flatten(1)))))
            return self.head(torch.relu(self.again(hidden)))

    torch.manual_seed(3)
    model = Twice().double()
    x, y = batch
    found = layer_traces(model, x, y)
    assert found.estimator == "hessian"  # W W x is not linear in W
    exact = layer_traces(model, x, y, estimator="exact")
    assert exact.quantity == "gauss-newton"
    want = 0.0
    for image in x:
        logits = model(image[None])[0]
        jacobian = torch.stack(
            [
                torch.autograd.grad(z, model.again.weight, retain_graph=True)[0].flatten()
                for z in logits
            ]
        )
        p = logits.softmax(0)
        want += float((jacobian.T @ (p.diag() - p.outer(p)) @ jacobian).trace().detach()) / len(x)
    assert exact.layers["again"].trace == pytest.approx(want, rel=1e-10)


def test_chunks_do_not_change_the_traces():
    """150 examples fill several chunks; each example alone gives the same value."""
    model = warmed(piecewise_linear()["residual"], (2, 6, 6))
    torch.manual_seed(2)
    x, y = torch.rand(150, 2, 6, 6, dtype=torch.float64), torch.randint(3, (150,))
    whole = layer_traces(model, x, y).per_example
    alone = torch.cat(
        [layer_traces(model, x[i : i + 1], y[i : i + 1]).per_example for i in (0, 63, 64, 149)]
    )
    torch.testing.assert_close(whole[[0, 63, 64, 149]], alone, rtol=1e-12, atol=0)


def test_the_model_is_left_as_it_was(batch):
    model = warmed(piecewise_linear()["batch-norm"], (2, 6, 6)).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layer_traces(model, *batch)
    assert model.training
    assert not model[1].training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not model[0]._forward_hooks


def test_wci_is_the_sum_of_its_definition(batch):
    model = warmed(piecewise_linear()["residual"], (2, 6, 6))
    x, y = batch
    found = wci(model, x, y)
    names = ["stem", "conv", "head"]
    norms = [model.get_parameter(f"{name}.weight").norm().item() for name in names]
    traces = [dense_block(model, x, y, f"{name}.weight").trace().item() for name in names]
    assert found.value == pytest.approx(
        sum(w * math.sqrt(t) for w, t in zip(norms, traces, strict=True)), rel=1e-10
    )
    assert found.bound == pytest.approx(
        math.sqrt(sum(w * w for w in norms) * sum(traces)), rel=1e-10
    )
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_wci_is_invariant_under_rescaling_of_relu_layers(scale, batch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    before = wci(model, *batch)
    with torch.no_grad():
        model[1].weight.mul_(scale)
        model[1].bias.mul_(scale)
        model[3].weight.div_(scale)
    after = wci(model, *batch)
    assert after.value == pytest.approx(before.value, rel=1e-12)
    assert after.standard_error == pytest.approx(before.standard_error, rel=1e-9)
    assert after.bound != pytest.approx(before.bound, rel=1e-3)


def test_wci_standard_error_agrees_with_the_jackknife():
    """The delta method against leave-one-out, on 200 examples: second-order differences only."""
    model = warmed(piecewise_linear()["stride-padding"], (2, 6, 6))
    torch.manual_seed(4)
    x, y = torch.rand(200, 2, 6, 6, dtype=torch.float64), torch.randint(3, (200,))
    found = wci(model, x, y)
    t = found.traces.per_example
    norms = torch.tensor([layer.frobenius for layer in found.layers], dtype=torch.float64)
    left_out = ((t.sum(0) - t) / (len(t) - 1)).sqrt() @ norms
    jackknife = ((len(t) - 1) / len(t) * (left_out - left_out.mean()).square().sum()).sqrt()
    assert found.standard_error == pytest.approx(float(jackknife), rel=0.01)


def test_negative_traces_fall_back_to_gauss_newton_and_say_so():
    """One class almost certain and a concave bump: the true trace is negative somewhere."""

    class Bump(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(1, 1, bias=False)
            nn.init.constant_(self.inner.weight, 0.5)

        def forward(self, x):
            hidden = self.inner(x.flatten(1))
            return torch.cat([hidden.square(), torch.zeros_like(hidden)], 1)

    model = Bump().double()
    x, y = torch.full((4, 1, 1, 1), 0.9, dtype=torch.float64), torch.zeros(4).long()
    found = wci(model, x, y)
    assert dense_block(model, x, y, "inner.weight").trace() < 0
    assert found.note is not None
    assert "Gauss-Newton" in found.note
    assert found.traces.quantity == "gauss-newton"
    assert layer_traces(model, x, y).layers["inner"].trace < 0


@pytest.mark.parametrize("k", [2, 3, 10])
def test_factor_of_the_logit_curvature(k):
    torch.manual_seed(0)
    z = torch.randn(6, k, dtype=torch.float64) * 4
    z[0, 0] = 800.0  # one class certain: no division by zero
    columns = logit_curvature_factor(z)
    assert columns.shape == (k - 1, 6, k)
    p = z.softmax(1)
    want = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    got = torch.einsum("cni,cnj->nij", columns, columns)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)


def test_weights_in_no_layer_are_named(batch):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(72, 3))
            self.head = nn.Linear(72, 3)

        def forward(self, x):
            return self.head(x.flatten(1)) + x.flatten(1) @ self.table

    assert layer_traces(Odd().double(), *batch).uncovered == ("table",)


def test_a_network_without_layers_is_refused(batch):
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(72, 3, dtype=torch.float64))

        def forward(self, x):
            return x.flatten(1) @ self.w

    with pytest.raises(NotMeasuredError, match="no convolution or linear layer"):
        layer_traces(Bare(), *batch)


def test_the_bias_of_the_roots_is_that_of_new_samples():
    """``E sqrt(t) < sqrt(E t)``: by resampling the examples, what the index loses on average."""
    draw = torch.Generator().manual_seed(0)
    per_example = 0.1 + torch.rand(80, 2, generator=draw, dtype=torch.float64)
    norms = torch.tensor([2.0, 0.5], dtype=torch.float64)

    def traces(rows):
        layers = {
            str(k): LayerTrace(
                str(k), float(norms[k]), float(rows[:, k].mean()),
                float(rows[:, k].std() / len(rows) ** 0.5), 0.0,
            )
            for k in range(2)
        }  # fmt: skip
        return LayerTraces(layers, "hessian", "exact", rows, (), (), 2)

    found = from_traces(traces(per_example))
    rows = torch.randint(80, (20_000, 80), generator=draw)
    means, mean = per_example[rows].mean(1), per_example.mean(0)
    # The part that is linear in the sample averages to nothing; without it few samples are enough.
    lost = means.sqrt() - mean.sqrt() - (means - mean) / (2 * mean.sqrt())
    assert found.bias < 0
    assert found.bias == pytest.approx(float((lost @ norms).mean()), rel=0.05)
