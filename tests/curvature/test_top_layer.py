import copy

import pytest
import torch
from support.networks import piecewise_linear, smooth, warmed
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from robaudit.curvature import top_layer_trh
from robaudit.errors import NotMeasuredError, UsageError

torch.manual_seed(4)
NETWORKS = {**piecewise_linear(), **smooth()}


@pytest.fixture
def batch():
    torch.manual_seed(1)
    x = torch.rand(6, 2, 6, 6, dtype=torch.float64)
    return x, (x + 0.3 * torch.randn_like(x)).clamp(0, 1), torch.tensor([0, 1, 2, 1, 0, 2])


def _loss(objective, penalty, clean, adversarial, y):
    """The four training losses, per example, as their own papers write them."""
    p, q = clean.detach().softmax(1), adversarial.softmax(1)
    divergence = (p * (p.log() - q.log())).sum(1)
    robust = F.cross_entropy(adversarial, y, reduction="none")
    if objective == "at":
        return robust
    if objective == "trades":
        return F.cross_entropy(clean, y, reduction="none") + penalty * divergence
    if objective == "alp":
        return robust + penalty * (p - q).square().sum(1)
    wrong = [[i for i in range(q.shape[1]) if i != label] for label in y]
    rival = [at[int(row[at].argmax())] for row, at in zip(q, wrong, strict=True)]
    # 1 - max as the sum of the others: the difference would lose the reference's own digits
    others = torch.stack(
        [sum(row[j] for j in range(len(row)) if j != i) for row, i in zip(q, rival, strict=True)]
    )
    weight = 1 - p[torch.arange(len(y)), y]
    return robust - others.log() + penalty * divergence * weight


@pytest.mark.parametrize("name", ["residual", "linear-only", "attention"])
@pytest.mark.parametrize(
    ("objective", "penalty"), [("at", 0.0), ("trades", 6.0), ("alp", 0.7), ("mart", 5.0)]
)
def test_it_is_the_trace_of_the_dense_hessian(name, objective, penalty, batch):
    model = warmed(copy.deepcopy(NETWORKS[name]), (2, 6, 6))
    head = "head" if hasattr(model, "head") else "3"
    with torch.no_grad():  # softmax away from uniform
        nn.init.normal_(
            model.get_submodule(head).weight, generator=torch.Generator().manual_seed(3)
        )
    weight = f"{head}.weight"
    named = {name: p.detach() for name, p in model.named_parameters()}
    x, x_adv, y = batch

    def dense(i):
        def of(w):
            here = slice(i, i + 1)
            clean = functional_call(model, {**named, weight: w}, (x[here],))
            adversarial = functional_call(model, {**named, weight: w}, (x_adv[here],))
            return _loss(objective, penalty, clean, adversarial, y[here]).sum()

        size = named[weight].numel()
        return torch.autograd.functional.hessian(of, named[weight]).reshape(size, size)

    want = torch.stack([dense(i).trace() for i in range(len(x))])
    found = top_layer_trh(model, x, x_adv, y, objective, penalty=penalty, chunk=4)
    assert found.layer == head
    torch.testing.assert_close(found.per_example, want, rtol=1e-10, atol=1e-12)
    assert found.value == pytest.approx(float(want.mean()), rel=1e-10)
    assert found.standard_error == pytest.approx(float(want.std()) / 6**0.5, rel=1e-9)
    assert sum(found.terms.values()) == pytest.approx(found.value)


def test_trades_where_nothing_moved_weighs_the_clean_trace(batch):
    """x' = x: TRADES is (1 + penalty) times AT, with the penalty that its paper sets."""
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    x, _, y = batch
    at = top_layer_trh(model, x, x, y).value
    assert top_layer_trh(model, x, x, y, "trades").value == pytest.approx(7 * at)


def test_saturated_logits_lose_no_digits():
    """p (1 - p) for a logit gap of 30: 1e-13, where float32 would say zero."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    model[1].weight.data = torch.tensor([[30.0], [0.0]])
    x = torch.ones(1, 1, 1, 1)
    p = torch.tensor(30.0, dtype=torch.float64).sigmoid()
    found = top_layer_trh(model, x, x, torch.zeros(1).long())
    assert found.value == pytest.approx(2 * float(p * (1 - p)), rel=1e-3)


def test_what_cannot_be_meant_or_measured_is_said(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    with pytest.raises(UsageError, match="objective cannot be 'awp'"):
        top_layer_trh(model, *batch, "awp")
    with pytest.raises(UsageError, match="penalty"):
        top_layer_trh(model, *batch, "trades", penalty=-1.0)
    with pytest.raises(NotMeasuredError, match="not the output of a linear layer"):
        top_layer_trh(nn.Sequential(model, nn.ReLU()), *batch)
    with pytest.raises(NotMeasuredError, match="not finite"):
        top_layer_trh(model, batch[0] * torch.nan, *batch[1:])


def test_a_single_image_and_a_chunk_of_one():
    """A network sees no image alone, but the trace is that of each image once."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    x, y = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    whole = top_layer_trh(model, x, x, y).per_example
    assert torch.allclose(top_layer_trh(model, x, x, y, chunk=2).per_example, whole)
    assert torch.allclose(top_layer_trh(model, x[:1], x[:1], y[:1]).per_example, whole[:1])
