"""An audit: the right numbers, the same ones again, and a model that is as it was."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from robaudit import attacks, curvature, run_audit
from robaudit.audit import Plan, audit, preset
from robaudit.audit.doubts import Findings
from robaudit.audit.probes import Average, Cw, Hessian, Pgd, Wci, Worst
from robaudit.checkpoints import Classifier, Origin
from robaudit.data import load_examples
from robaudit.engine import TILE, Runner
from robaudit.errors import UsageError
from robaudit.report import read_report, write_report
from robaudit.schema import Report

PGD = Pgd(steps=10)
LIGHT = Plan(
    probes=(PGD, Wci(PGD), Average(PGD, perturbations=2), Worst(PGD, passes=2, restarts=1))
)


@pytest.fixture(scope="module")
def quick(robust, few, train):
    """The quick preset on both splits."""
    from robaudit.types import ThreatModel

    return run_audit(robust, few, ThreatModel("linf", 0.15), preset="quick", train=train, seed=5)


# The numbers


def test_accuracies_and_losses_are_those_of_the_network_and_the_attack(quick, robust, few, threat):
    with torch.no_grad():
        logits = robust(few.x)
    right = logits.argmax(1) == few.y
    assert quick.get("accuracy.clean").value == right.sum().item() / 32
    losses = nn.functional.cross_entropy(logits, few.y, reduction="none")
    assert quick.get("loss.clean").value == pytest.approx(losses.mean().item(), rel=1e-4)
    found = attacks.pgd(robust, few.x, few.y, threat, steps=10, seed=5, index=few.index)
    assert quick.get("accuracy.pgd").value == found.robust.sum().item() / 32
    assert quick.get("loss.robust").value == pytest.approx(found.loss.double().mean().item())
    assert ((found.x - few.x).abs() <= 0.15 + 1e-6).all()


def test_wci_is_that_of_pgd_10_examples(quick, robust, train, few, threat):
    for split, examples in (("test", few), ("train", train)):
        at = attacks.pgd(
            robust, examples.x, examples.y, threat, steps=10, seed=5, index=examples.index
        )
        own = curvature.wci(robust, at.x, examples.y)
        found = quick.get("wci", split)
        assert found.value == pytest.approx(own.value, rel=1e-6)  # float32 sums, threads
        assert found.standard_error == pytest.approx(own.standard_error, rel=1e-4)
        assert quick.get("wci.bound", split).value == pytest.approx(own.bound, rel=1e-6)
        assert found.value <= quick.get("wci.bound", split).value
        assert found.settings["pgd"]["steps"] == 10


def test_wci_of_a_linear_network_has_a_closed_form(few, threat):
    """Tr(H) = mean |x|^2 sum_k p_k (1 - p_k) in the weights of one layer on softmax."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    found = audit(network, few, threat, Plan(probes=(Wci(PGD),))).report
    at = attacks.pgd(network, few.x, few.y, threat, steps=10, index=few.index).x.double()
    weight, bias = network[1].weight.detach().double(), network[1].bias.detach().double()
    p = (at.flatten(1) @ weight.T + bias).softmax(1)
    trace = (at.flatten(1).square().sum(1) * (p * (1 - p)).sum(1)).mean().item()
    assert found.get("trace.total").value == pytest.approx(trace, rel=1e-5)
    expected = weight.norm().item() * math.sqrt(trace)
    assert found.get("wci").value == pytest.approx(expected, rel=1e-5)
    assert found.get("weights.frobenius").value == pytest.approx(weight.norm().item(), rel=1e-5)


def test_the_quick_preset_measures_what_it_promises(quick):
    assert [(m.name, m.split) for m in quick.measurements] == [
        ("accuracy.clean", "test"), ("loss.clean", "test"),
        ("accuracy.clean", "train"), ("loss.clean", "train"),
        ("accuracy.pgd", "test"), ("loss.robust", "test"),
        ("accuracy.pgd", "train"), ("loss.robust", "train"),
        ("gap.error", "gap"), ("gap.loss", "gap"),
        ("accuracy.worst_class", "test"), ("accuracy.worst_class", "train"),
        ("wci", "test"), ("wci.bound", "test"), ("trace.total", "test"),
        ("wci", "train"), ("wci.bound", "train"), ("trace.total", "train"),
        ("pacbayes.bound", "train"),
        ("weights.frobenius", "test"), ("trh.top_layer", "test"),
        ("flatness.average", "test"), ("flatness.worst", "test"),
    ]  # fmt: skip
    assert {m.status for m in quick.measurements} == {"ok"}
    assert quick.get("flatness.average").interval.method == "t, 4 degrees"
    assert quick.get("flatness.worst").interval.method == f"t, {quick.data.n - 1} degrees"
    reference = quick.get("loss.robust").value
    assert quick.get("flatness.average").details["reference"] == pytest.approx(reference)
    for m in quick.measurements:
        if m.interval is not None:
            assert m.interval.low <= m.value <= m.interval.high


def test_a_report_survives_json(quick, tmp_path):
    assert Report.model_validate_json(quick.model_dump_json()) == quick
    assert read_report(write_report(quick, tmp_path / "report.json")) == quick


# The same again


def test_the_same_seed_gives_the_same_numbers(robust, few, threat, numbers):
    first = audit(robust, few, threat, LIGHT, seed=1)
    again = audit(robust, few, threat, LIGHT, seed=1)
    assert numbers(first.report) == numbers(again.report)
    assert first.outcomes.keys() == again.outcomes.keys()
    for name, rows in first.outcomes.items():
        assert torch.equal(rows, again.outcomes[name])
    other = audit(robust, few, threat, LIGHT, seed=2)
    assert not torch.equal(first.outcomes["test.loss.robust"], other.outcomes["test.loss.robust"])
    assert torch.equal(first.outcomes["test.loss.clean"], other.outcomes["test.loss.clean"])


@pytest.mark.slow
def test_the_batch_size_changes_nothing(robust, few, threat, numbers):
    auto = audit(robust, few, threat, LIGHT).report
    single = audit(robust, few, threat, LIGHT, batch_size=1).report
    assert numbers(auto) == numbers(single)
    assert (auto.provenance.batch_size, single.provenance.batch_size) == (None, 1)


def test_a_subset_gives_the_outcomes_of_the_whole(robust, few, threat):
    """Across the boundary between two tiles of images."""
    plan = Plan(probes=(PGD, replace(Cw.like(PGD), steps=2), Wci(PGD)))
    part = audit(robust, few, threat, plan).outcomes
    whole = audit(robust, load_examples("digits", n=80), threat, plan).outcomes
    assert part.keys() == whole.keys()
    for name, rows in part.items():
        if name == "test.trace":  # sums of float32 in tiles of another size
            torch.testing.assert_close(rows, whole[name][:32], rtol=1e-4, atol=1e-6)
        else:
            assert torch.equal(rows, whole[name][:32]), name


def test_an_example_keeps_its_numbers_in_any_company(robust, threat):
    """Its random start belongs to its place in the data set, not to its row."""
    first = load_examples("digits", n=32)
    drawn = load_examples("digits", n=120, sample_seed=0)
    shared = [
        (row, first.index.tolist().index(i))
        for row, i in enumerate(drawn.index.tolist())
        if i in first.index
    ]
    assert len(shared) > 3
    a = audit(robust, drawn, threat, Plan(probes=(PGD,))).outcomes["test.loss.robust"]
    b = audit(robust, first, threat, Plan(probes=(PGD,))).outcomes["test.loss.robust"]
    for row, at in shared:
        assert a[row] == b[at]


# Sharing


@pytest.fixture
def calls(monkeypatch):
    """The attacks that the context makes: ``(examples, steps, loss)``."""
    made = []

    def counted(runner, x, *rest, **settings):
        made.append((len(x), settings["steps"], settings["loss"]))
        return attacks.pgd(runner, x, *rest, **settings)

    monkeypatch.setattr("robaudit.audit.context.pgd", counted)
    return made


def test_quick_attacks_each_split_once(robust, few, train, threat, calls):
    run_audit(robust, few, threat, preset="quick", train=train)
    assert calls == [(32, 10, "ce")] * 2


def test_another_attack_is_not_shared(robust, few, threat, calls):
    plan = Plan(probes=(Pgd(steps=2), Cw(steps=2), Wci(Pgd(steps=3))))
    audit(robust, few, threat, plan)
    assert calls == [(32, 2, "ce"), (32, 2, "margin"), (32, 3, "ce")]


def test_a_probe_on_fewer_examples_takes_them_from_the_rest(robust, few, threat, calls):
    plan = Plan(probes=(Pgd(steps=2), Hessian(Pgd(steps=2), n=8, operator="gauss-newton")))
    whole = audit(robust, few, threat, plan).report.get("hessian.largest")
    assert calls == [(32, 2, "ce")]
    eight = replace(few, x=few.x[:8], y=few.y[:8], index=few.index[:8])
    alone = audit(robust, eight, threat, plan).report.get("hessian.largest")
    assert whole.n == alone.n == 8
    assert whole.value == pytest.approx(alone.value, rel=1e-5)


# Plans


def test_settings_that_cannot_be_meant():
    for make in (
        lambda: Pgd(steps=0),
        lambda: Pgd(restarts=0),
        lambda: Pgd(step_over_eps=0),
        lambda: Pgd(step_over_eps=math.nan),
        lambda: Average(PGD, xi=-1),
        lambda: Worst(PGD, xi=math.nan),
        lambda: preset("thorough"),
    ):
        with pytest.raises(UsageError):
            make()


# The model


def test_a_plain_module_is_audited_and_left_as_it_was(few, train, threat, small):
    """In training mode, with gradients wanted: an audit must see neither, and change neither."""
    torch.manual_seed(0)
    network = small()
    network.conv.weight.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    state = torch.get_rng_state()
    report = audit(network, few, threat, LIGHT, train=train).report
    assert torch.equal(torch.get_rng_state(), state)
    after = network.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    assert all(module.training for module in network.modules())
    assert {name: p.requires_grad for name, p in network.named_parameters()} == {
        name: name != "conv.weight" for name in dict(network.named_parameters())
    }
    assert all(p.grad is None for p in network.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert {m.status for m in report.measurements} == {"ok"}
    subject = report.subject
    assert (subject.architecture, subject.format, subject.sha256) == ("Small", "module", None)
    assert subject.parameters == sum(p.numel() for p in network.parameters())
    # Dropout is off and batch norm uses what it has learnt: the numbers are those of eval mode.
    own = audit(network.eval(), few, threat, LIGHT, train=train).report
    assert own.get("loss.robust").value == report.get("loss.robust").value


def test_layers_are_called_as_their_author_calls_them(few, threat):
    """A module's own part named ``network`` keeps its name; a classifier's holder does not show."""

    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

        def forward(self, x):
            return self.network(x)

    def names(model):
        report = audit(model, few, threat, LIGHT).report
        return [row["name"] for row in report.get("wci").details["layers"]]

    origin = Origin("w.pt", None, "torch-zip", "inner", "--arch", "none", 650)
    assert names(Inner()) == ["network.1"]
    assert names(Classifier(Inner(), None, origin)) == ["network.1"]
    assert names(Classifier(Inner().network, None, origin)) == ["1"]


def test_passes_that_memory_made_smaller_are_said_and_change_no_number(
    robust, threat, numbers, monkeypatch
):
    """A device that takes one tile at a time and is offered four."""
    some = load_examples("digits", n=3 * TILE)
    plan = Plan(probes=(Pgd(steps=2),))
    wanted = audit(robust, some, threat, plan).report

    class Narrow(nn.Module):
        def forward(self, x):
            if len(x) > TILE:
                raise torch.cuda.OutOfMemoryError("too much")
            return robust(x)

    begin = Runner.__init__

    def wide(self, *given, **how):
        begin(self, *given, **how)
        self.batch = 4 * TILE  # as on a GPU

    monkeypatch.setattr(Runner, "__init__", wide)
    found = audit(robust, some, threat, plan).report
    assert not any("memory" in warning for warning in found.warnings)
    monkeypatch.setattr("robaudit.audit.sanity.sanity", lambda _: Findings())  # it runs no tiles
    found = audit(Narrow(), some, threat, plan).report
    assert any("passes of 256 images; they went on with 64" in note for note in found.warnings)
    assert numbers(found) == numbers(wanted)
