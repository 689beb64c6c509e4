"""Curvature in an audit: which layers, which operator, which loss; and the terms of bounds."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from support.dense import dense_full
from support.gauss_newton import dense_gauss_newton
from torch import nn

from robaudit import attacks
from robaudit.audit import Plan, audit
from robaudit.audit.probes import Bound, Hessian, Pgd, TopLayer, Wci, Worst
from robaudit.data import load_examples
from robaudit.errors import UsageError
from robaudit.report import render

PGD = Pgd(steps=3)
SPECTRUM = Hessian(PGD, None, top=2, probes=2)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture
def deep():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))


def test_the_top_layer_and_the_bound_have_closed_forms(linear, few, threat):
    """For one layer: Tr(H) = mean |x|^2 1^T (p - p^2), the same under every name."""
    plan = Plan(probes=(Wci(PGD, bound=Bound(beta=10, s0=0.1, lambda_=8)), TopLayer(PGD)))
    few = replace(few, split="train")
    report = audit(linear, few, threat, plan).report
    at = attacks.pgd(linear, few.x, few.y, threat, steps=3, index=few.index)
    images, weight = at.x.double().flatten(1), linear[1].weight.detach().double()
    p = (images @ weight.T + linear[1].bias.detach().double()).softmax(1)
    trace = float((images.square().sum(1) * (p * (1 - p)).sum(1)).mean())
    assert report.get("trh.top_layer").value == pytest.approx(trace, rel=1e-5)
    bound = report.get("pacbayes.bound")
    squared = float(weight.square().sum())
    expected = float(at.loss.double().mean()) + squared / (2 * 10 * 0.01) + 0.01 / 2 * trace
    assert bound.value == pytest.approx(expected, rel=1e-5)
    wci = math.sqrt(squared * trace)
    assert bound.details["wci_term"]["value"] == pytest.approx(math.sqrt(2 / 8) * wci, rel=1e-5)
    assert bound.settings["beta"] == 10


def test_the_bound_is_of_the_training_split_and_its_size(linear, few, train, threat):
    """Risk and trace at training images, n the split's and not how many of it were measured."""
    plan = Plan(probes=(Wci(PGD),))
    size = len(load_examples("digits", split="train"))
    for n in (16, 32):
        part = replace(train, x=train.x[:n], y=train.y[:n], index=train.index[:n])
        report = audit(linear, few, threat, plan, train=part).report
        found = report.get("pacbayes.bound")
        assert found.split == "train"
        assert found.n == n
        assert (found.settings["beta"], found.settings["lambda_"]) == (size, size)
        loss, trace = (report.get(name, "train").value for name in ("wci", "trace.total"))
        at = attacks.pgd(linear, part.x, part.y, threat, steps=3, index=part.index)
        squared = float(linear[1].weight.detach().double().square().sum())
        s0 = 64**-0.5
        want = float(at.loss.double().mean()) + squared / (2 * size * s0**2) + s0**2 / 2 * trace
        assert found.value == pytest.approx(want, rel=1e-5)
        term = found.details["wci_term"]["value"]
        assert term == pytest.approx(math.sqrt(2 / size) * loss, rel=1e-6)
        assert report.get("pacbayes.bound", "test") is None


def test_without_training_data_there_is_no_bound(linear, few, threat):
    report = audit(linear, few, threat, Plan(probes=(Wci(PGD),))).report
    found = report.get("pacbayes.bound")
    assert found.status == "skipped"
    assert "no training data" in found.reason


def test_a_training_split_of_unknown_size_is_said(linear, few, train, threat):
    unknown = replace(train, population=None)
    found = audit(linear, few, threat, Plan(probes=(Wci(PGD),)), train=unknown).report
    bound = found.get("pacbayes.bound")
    assert bound.settings["beta"] == len(train)
    assert any("not known" in warning for warning in bound.warnings)


def test_bounds_change_when_layers_are_rescaled_and_the_index_does_not(deep, few, train, threat):
    def measured():
        report = audit(deep, few, threat, Plan(probes=(Wci(PGD),)), train=train).report
        return [report.get(name).value for name in ("wci", "wci.bound", "pacbayes.bound")]

    before = measured()
    with torch.no_grad():
        deep[1].weight.mul_(4)
        deep[1].bias.mul_(4)
        deep[3].weight.div_(4)
    after = measured()
    assert after[0] == pytest.approx(before[0], rel=1e-4)
    assert after[1] > 1.2 * before[1]
    assert after[2] > 1.2 * before[2]


def test_parametrised_and_pruned_layers_are_said(few, threat):
    torch.manual_seed(0)

    class Network(nn.Sequential):
        def forward(self, x):
            return self[3](self[2](self[1](self[0](x))))

    network = Network(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(), nn.Linear(6, 10))
    network.never = nn.Linear(3, 3)
    nn.utils.parametrizations.weight_norm(network[1])
    nn.utils.prune.l1_unstructured(network[3], "weight", 20)
    plan = Plan(probes=(Wci(PGD), SPECTRUM, Worst(PGD, passes=2, restarts=1)))
    report = audit(network, few, threat, plan).report
    for name in ("wci", "hessian.largest", "flatness.worst"):
        said = " ".join(report.get(name).warnings)
        assert "1, 3" in said
        assert "20 pruned entries" in said
        assert "never" in said
    norm = sum(float(network[at].weight.detach().double().square().sum()) for at in (1, 3))
    assert report.get("weights.frobenius").value == pytest.approx(norm**0.5, rel=1e-6)


def test_trades_counts_both_images(linear, few, threat):
    def value(**kind):
        plan = Plan(probes=(TopLayer(PGD, **kind),))
        return audit(linear, few, threat, plan).report.get("trh.top_layer").value

    clean = value(objective="trades", penalty=0.0)
    assert value(objective="trades", penalty=2.0) == pytest.approx(clean + 2 * value(), rel=1e-6)


def test_a_network_without_a_top_layer_is_no_failure(few, threat):
    network = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    report = audit(network, few, threat, Plan(probes=(Wci(PGD), TopLayer(PGD)))).report
    found = report.get("trh.top_layer")
    assert found.status == "skipped"
    assert "no top layer" in found.reason
    assert report.get("wci").status == "ok"


def test_layers_are_named_as_in_the_report(robust, few, threat):
    """The classifier around the network adds a prefix that its author never sees."""
    chosen = audit(robust, few, threat, Plan(probes=(Wci(PGD, layers=("head",)),))).report
    whole = audit(robust, few, threat, Plan(probes=(Wci(PGD),))).report
    (row,) = chosen.get("wci").details["layers"]
    assert row["name"] == "head"
    same = next(r for r in whole.get("wci").details["layers"] if r["name"] == "head")
    assert row["trace"] == pytest.approx(same["trace"], rel=1e-6)
    assert chosen.get("pacbayes.bound") is None  # one layer's terms bound nothing
    assert "chosen layers" in render([chosen], "md")


@pytest.mark.parametrize("plan", [Plan(probes=(Wci(PGD, layers=("hed",)),)),
                                  Plan(probes=(replace(SPECTRUM, layers=("hed",)),))])  # fmt: skip
def test_an_unknown_layer_stops_the_audit_before_any_work(robust, few, threat, plan):
    def forbidden(_):
        raise AssertionError("work was begun")

    with pytest.raises(UsageError, match="no layer 'hed'") as caught:
        audit(robust, few, threat, plan, watch=forbidden)
    assert "head" in caught.value.advice
    assert "network." not in caught.value.advice


def test_the_gauss_newton_spectrum_of_few_examples_is_whole(deep, few, threat):
    few = replace(few, x=few.x[:6], y=few.y[:6], index=few.index[:6])
    plan = Plan(probes=(replace(SPECTRUM, operator="gauss-newton"),))
    report = audit(deep, few, threat, plan).report
    at = attacks.pgd(deep, few.x, few.y, threat, steps=3, index=few.index)
    want = torch.linalg.eigvalsh(dense_gauss_newton(deep.double(), at.x.double())).flip(0)
    found = report.get("hessian.largest")
    assert found.settings["method"] == "gram"
    assert found.details["eigenvalues"] == pytest.approx(want[:2].tolist(), rel=1e-4)
    assert report.get("hessian.trace").value == pytest.approx(float(want.sum()), rel=1e-4)
    assert report.get("hessian.trace").details["probed"]["standard_error"] == 0
    assert "Gauss-Newton" in render([report], "md")


def test_lanczos_takes_over_where_the_rank_is_high(deep, few, threat, monkeypatch):
    from robaudit.audit.probes import hessian

    plan = Plan(probes=(replace(SPECTRUM, operator="gauss-newton", tolerance=1e-5),))
    whole = audit(deep, few, threat, plan).report.get("hessian.largest")
    monkeypatch.setattr(hessian, "_SMALL_RANK", 1)
    other = audit(deep, few, threat, plan).report.get("hessian.largest")
    assert (whole.settings["method"], other.settings["method"]) == ("gram", "lanczos")
    assert other.details["eigenvalues"] == pytest.approx(whole.details["eigenvalues"], rel=1e-4)


def test_the_spread_of_each_layer_is_shown(deep, few, threat):
    plan = Plan(probes=(replace(SPECTRUM, spread_probes=4),))
    report = audit(deep, few, threat, plan).report
    rows = report.get("hessian.trace").details["layers"]
    assert [row["name"] for row in rows] == ["1", "3"]
    assert [row["dimension"] for row in rows] == [384, 60]
    assert all(row["deviation"] > 0 for row in rows)
    assert "Eigenvalues by layer" in render([report], "md")


@pytest.mark.parametrize("restriction", [{"layers": ("head",)}, {"operator": "gauss-newton"}])
def test_pyhessian_is_not_asked_for_what_it_cannot_do(restriction):
    with pytest.raises(UsageError, match="whole network"):
        replace(SPECTRUM, engine="pyhessian", **restriction)


def test_the_trace_of_the_hessian_is_exact_where_its_blocks_are(deep, few, threat):
    """In all parameters, biases included, against the dense matrix."""
    few = replace(few, x=few.x[:6], y=few.y[:6], index=few.index[:6])
    report = audit(deep, few, threat, Plan(probes=(SPECTRUM,))).report
    at = attacks.pgd(deep, few.x, few.y, threat, steps=3, index=few.index)
    dense = dense_full(deep.double(), at.x.double(), few.y)
    found = report.get("hessian.trace")
    assert found.details["estimator"] == "exact"
    assert found.value == pytest.approx(float(dense.trace()), rel=1e-4)


def test_rounding_of_traces_is_part_of_their_error_or_said_to_be_none(robust, threat):
    examples = load_examples("digits", n=128)
    plan = Plan(probes=(Wci(PGD),))
    full = audit(robust, examples, threat, plan, precision="fp32").report
    rounded = audit(robust, examples, threat, plan, precision="bf16").report
    for report, precision in ((full, "fp32"), (rounded, "bf16")):
        for name in ("wci", "trace.total"):
            details = report.get(name).details
            assert (details["precision"], details["rounding"] > 0) == (
                precision,
                precision != "fp32",
            )
    for a, b in zip(*(r.get("wci").details["layers"] for r in (full, rounded)), strict=True):
        assert (a["rounding"], b["rounding"] > 0) == (0, True)
        assert abs(a["trace"] - b["trace"]) < a["standard_error"] / 5
    few = audit(robust, load_examples("digits", n=8), threat, plan, precision="bf16").report
    assert few.get("wci").details["precision"] == "fp32"
    assert any("fp32, not bf16" in line for line in few.get("wci").warnings)


def test_the_spectrum_says_what_it_is_of(linear, few, threat):
    """How many examples, in which arithmetic, and what each half of them says."""
    report = audit(linear, few, threat, Plan(probes=(SPECTRUM,))).report
    largest = report.get("hessian.largest")
    assert (largest.n, largest.settings["probes"]) == (len(few.x), 2)
    assert (largest.details["precision"], largest.details["rounding"]) == ("fp32", 0)
    assert sum(largest.details["halves"]) / 2 == pytest.approx(largest.value, rel=1e-4)


def test_both_splits_are_of_one_quantity(few, train, threat, monkeypatch):
    from robaudit import curvature

    torch.manual_seed(0)
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.SiLU(), nn.Linear(6, 10))
    nn.init.zeros_(smooth[1].weight)  # so that the Hessian's traces are clearly positive
    real = curvature.wci

    def falling(model, x, y, *, estimator, **how):
        """As if on the training split they were not."""
        if estimator == "auto" and torch.equal(y, train.y):
            found = real(model, x, y, estimator="exact", **how)
            return replace(found, note="the Hessian's trace is not clearly positive")
        return real(model, x, y, estimator=estimator, **how)

    monkeypatch.setattr(curvature, "wci", falling)
    report = audit(smooth, few, threat, Plan(probes=(Wci(PGD),)), train=train).report
    for split in ("test", "train"):
        found = report.get("wci", split)
        assert found.details["quantity"] == "gauss-newton"
        assert found.details["estimator"] == "exact"
    assert any("as on the other split" in text for text in report.get("wci").warnings)


def test_in_float64_numbers_are_those_of_the_network_in_float64(deep, few, threat):
    few = few.taken(slice(6))
    plan = Plan(probes=(Wci(PGD), replace(SPECTRUM, tolerance=1e-8)))
    report = audit(deep, few, threat, plan, precision="float64").report
    at = attacks.pgd(deep, few.x, few.y, threat, steps=3, index=few.index)
    dense = dense_full(copy.deepcopy(deep).double(), at.x.double(), few.y)
    assert report.get("hessian.trace").value == pytest.approx(float(dense.trace()), rel=1e-11)
    top = float(torch.linalg.eigvalsh(dense)[-1])
    assert report.get("hessian.largest").value == pytest.approx(top, rel=1e-9)
    assert report.get("wci").details["precision"] == "float64"
    assert report.provenance.precision == "fp32, curvature in float64"
    plain = audit(deep, few, threat, plan).report
    assert plain.get("hessian.trace").value == pytest.approx(float(dense.trace()), rel=1e-4)
    assert plain.get("hessian.trace").value != pytest.approx(float(dense.trace()), rel=1e-11)
