"""Attacks in an audit: curves over radii, other networks' examples, doubts, pieces kept."""

import dataclasses
from functools import partial

import pytest
import torch
from torch import nn

from robaudit import attacks
from robaudit.attacks import apgd, ensemble, fab, square
from robaudit.attacks.verification import verify
from robaudit.audit import Plan, audit
from robaudit.audit.journal import open_journal
from robaudit.audit.probes import (
    AutoAttack,
    Calibration,
    Cw,
    Distance,
    Fast,
    Pgd,
    Replay,
    Square,
    Transfer,
    Wci,
)
from robaudit.checkpoints import load, samples_dir
from robaudit.types import ThreatModel

PGD = Pgd(steps=5)
NATIVE = AutoAttack(engine="native")


@pytest.fixture(scope="module")
def standard():
    return load(samples_dir() / "standard.pt", device="cpu")


def first(examples, n):
    return dataclasses.replace(
        examples, x=examples.x[:n], y=examples.y[:n], index=examples.index[:n]
    )


# Several radii


@pytest.fixture(scope="module")
def curved(robust, few):
    plan = Plan(probes=(PGD, Fast()), radii=(0.05, 0.15))
    return audit(robust, few, ThreatModel("linf", 0.3), plan)


def test_accuracy_never_rises_with_the_radius(curved):
    for name in ("accuracy.pgd", "accuracy.fast"):
        found = curved.report.get(name)
        rows = found.details["curve"]
        assert [row["eps"] for row in rows] == [0.05, 0.15, 0.3]
        values = [row["value"] for row in rows]
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]
        assert values[-1] <= found.value
        for row in rows:
            assert row["low"] <= row["value"] <= row["high"]
    losses = [row["loss"] for row in curved.report.get("accuracy.pgd").details["curve"]]
    assert losses == sorted(losses)
    assert losses[-1] >= curved.report.get("loss.robust").value - 1e-6


@pytest.mark.slow
def test_a_curve_changes_nothing_but_itself(robust, few, train, numbers):
    """The radii of a curve once warm-started the headline, on the audited split alone."""
    plan = Plan(probes=(PGD, Cw.like(PGD), Fast(), Wci(PGD)))
    threat = ThreatModel("linf", 0.2)
    plain, curved = (
        audit(robust, few, threat, dataclasses.replace(plan, radii=radii), train=train)
        for radii in ((), (0.1, 0.15))
    )
    assert plain.outcomes.keys() == curved.outcomes.keys()
    for name, rows in plain.outcomes.items():
        assert torch.equal(rows, curved.outcomes[name]), name
    for one, other in zip(numbers(plain.report), numbers(curved.report), strict=True):
        rest = {k: v for k, v in other.details.items() if not k.startswith("curve")}
        assert one == other.model_copy(update={"details": rest})
    assert torch.equal(plain.adversarial.x, curved.adversarial.x)


@pytest.mark.slow
def test_a_point_of_the_curve_is_no_higher_than_an_attack_of_that_radius_alone(curved, robust, few):
    """Both are upper bounds; a warm start and the smaller radii may only find more."""
    rows = {row["eps"]: row["value"] for row in curved.report.get("accuracy.fast").details["curve"]}
    alone = attacks.fast(robust, few.x, few.y, ThreatModel("linf", 0.15), index=few.index)
    assert rows[0.15] == pytest.approx(alone.robust.double().mean().item(), abs=1 / len(few))


def test_every_break_that_counts_is_one(curved, robust, few):
    found = curved.adversarial
    judged = verify(robust, few.x, found.x, few.y, ThreatModel("linf", 0.3))
    assert bool(judged.in_ball.all())
    assert bool(judged.in_box.all())
    assert torch.equal(judged.breaks & found.broken, found.broken)
    worst = min(curved.report.get(name).value for name in ("accuracy.pgd", "accuracy.fast"))
    clean = curved.outcomes["test.accuracy.clean"]
    assert (clean & ~found.broken).double().mean().item() <= worst


# What others made


def test_transferred_images_are_the_surrogate_s_and_the_judgement_is_ours(robust, standard, few):
    threat = ThreatModel("linf", 0.15)
    plan = Plan(probes=(PGD, Transfer(PGD, "standard.pt")))
    report = audit(robust, few, threat, plan, surrogate=standard).report
    made = attacks.pgd(standard, few.x, few.y, threat, steps=5, index=few.index)
    with torch.no_grad():
        right = (robust(few.x).argmax(1) == few.y) & (robust(made.x).argmax(1) == few.y)
    found = report.get("accuracy.transfer")
    assert found.value == right.double().mean().item()
    assert found.value >= report.get("accuracy.pgd").value
    assert found.settings["surrogate"] == "standard.pt"


def test_replayed_images_confirm_themselves_and_no_other_network(robust, standard, few):
    threat = ThreatModel("linf", 0.15)
    made = audit(robust, few, threat, Plan(probes=(PGD,)))
    plan = Plan(probes=(Replay("adv.safetensors"),))
    again = audit(robust, few, threat, plan, replayed=made.adversarial).report
    found = again.get("accuracy.transfer")
    assert found.value == made.report.get("accuracy.pgd").value
    assert found.details["claimed"] == found.details["confirmed"]
    assert found.warnings == []
    moved = dataclasses.replace(made.adversarial, x=few.x)
    refused = audit(robust, few, threat, plan, replayed=moved).report.get("accuracy.transfer")
    assert refused.details["confirmed"] < refused.details["claimed"]
    assert "do not break this one" in refused.warnings[0]
    far = audit(robust, few, ThreatModel("linf", 0.01), plan, replayed=made.adversarial).report
    assert far.get("accuracy.transfer").value == far.get("accuracy.clean").value
    assert far.get("accuracy.transfer").details["in_ball"] < len(few)


# Doubts


class Masked(nn.Module):
    """A good network whose gradients are hidden, and whose predictions are not."""

    def __init__(self, network, kind):
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, x):
        if self.kind == "quantised":
            x = (x * 16).round() / 16
        logits = self.network(x)
        return logits * 1e4 if self.kind == "temperature" else logits


@pytest.mark.slow
def test_masked_gradients_are_doubted_and_square_sees_through_them(standard, few):
    """PGD overestimates what a search without gradients breaks."""
    few = first(few, 16)
    plan = Plan(probes=(PGD, Square(queries=500), Fast()))
    report = audit(Masked(standard, "quantised"), few, ThreatModel("linf", 0.15), plan).report
    assert report.get("accuracy.square").value < report.get("accuracy.pgd").value
    for name in ("accuracy.pgd", "accuracy.fast"):
        assert any("gradient" in line for line in report.get(name).doubts), name


def test_large_logits_mask_nothing(standard, few):
    few = first(few, 16)
    plan = Plan(probes=(Pgd(steps=20), Fast()))
    report = audit(Masked(standard, "temperature"), few, ThreatModel("linf", 0.15), plan).report
    assert report.get("accuracy.pgd").value < 0.2
    assert not any(m.doubts for m in report.measurements)


@pytest.mark.slow
def test_square_after_gradients_raises_a_doubt(standard, few):
    network = Masked(standard, "quantised")
    few = first(few, 8)
    found = audit(network, few, ThreatModel("linf", 0.15), Plan(probes=(NATIVE,))).report
    measured = found.get("accuracy.autoattack")
    assert measured.details["diagnostics"]["black_box_only"] > 1
    assert any("Square broke" in line and "masked" in line for line in measured.doubts)


def test_a_random_network_is_said_to_be_one(standard, few):
    class Noisy(nn.Module):
        def forward(self, x):
            return standard(x) + 0.5 * torch.randn(len(x), 10)

    report = audit(Noisy(), few, ThreatModel("linf", 0.1), Plan(probes=(PGD,))).report
    assert any("output is random" in line for line in report.warnings)


@pytest.mark.parametrize(
    "name",
    ["robust.pt", "standard.pt"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("trades.safetensors", "overfit.pt", "smooth.safetensors")
    ],
)
def test_honest_networks_raise_no_doubt(name, few):
    network = load(samples_dir() / name, device="cpu")
    plan = Plan(probes=(Pgd(steps=20), Fast()))
    report = audit(network, few, ThreatModel("linf", 0.15), plan).report
    assert report.get("accuracy.fast").warnings == []
    assert not any(m.doubts for m in report.measurements)
    assert not any("gradient" in line for line in report.warnings)


def test_a_network_without_gradients_can_be_attacked_without(standard, few):
    class Opaque(nn.Module):
        def forward(self, x):
            return standard(x.detach())

    few = first(few, 8)
    plan = Plan(probes=(PGD, Square(queries=200)))
    report = audit(Opaque(), few, ThreatModel("linf", 0.15), plan).report
    failed = report.get("accuracy.pgd")
    assert failed.status == "failed"
    assert "no gradient" in failed.reason
    assert report.get("accuracy.square").value < report.get("accuracy.clean").value


# Distances


@pytest.mark.slow
def test_distances_bound_where_accuracy_falls(robust, few):
    """Half of the examples have an error nearer than the median; PGD there finds no fewer than a
    third of them broken."""
    report = audit(robust, few, ThreatModel("linf", 0.15), Plan(probes=(Distance(),))).report
    found = report.get("distance.median")
    assert found.interval.low <= found.value <= found.interval.high
    assert found.unit == "linf"
    at = attacks.fast(robust, few.x, few.y, ThreatModel("linf", found.value), index=few.index)
    assert at.robust.double().mean().item() == pytest.approx(0.5, abs=0.17)


# Pieces


@pytest.mark.slow
def test_an_interrupted_audit_ends_as_an_undisturbed_one(robust, few, tmp_path, numbers):
    """Stopped after each piece in turn; every attack is computed once."""
    plan = Plan(probes=(PGD, Cw(steps=2), Fast()), radii=(0.1,))
    threat = ThreatModel("linf", 0.2)
    whole = audit(robust, few, threat, plan)
    computed = []

    class Stop(BaseException):
        pass

    def stopping(journal):
        def cache(name, compute):
            before = len(computed)

            def counted():
                computed.append(name)
                return compute()

            piece = journal.piece(name, counted)
            if len(computed) > before:
                raise Stop
            return piece

        return cache

    for _ in range(20):
        try:
            done = audit(
                robust, few, threat, plan, cache=stopping(open_journal(tmp_path, {"k": 1}))
            )
            break
        except Stop:
            continue
    assert len(computed) == len(set(computed)) >= 8
    assert numbers(done.report) == numbers(whole.report)
    for name, rows in whole.outcomes.items():
        assert torch.equal(rows, done.outcomes[name])
    assert torch.equal(done.adversarial.x, whole.adversarial.x)


@pytest.mark.slow
def test_the_reference_s_batches_are_kept_as_well(robust, few, tmp_path):
    few = first(few, 4)
    plan = Plan(probes=(AutoAttack(batch_size=3),))
    threat = ThreatModel("linf", 0.2)
    whole = audit(robust, few, threat, plan)
    journal = open_journal(tmp_path, {"k": 1})
    kept = audit(robust, few, threat, plan, cache=journal.piece)

    def never(name, compute):
        return journal.piece(name, lambda: pytest.fail(f"{name} was finished"))

    again = audit(robust, few, threat, plan, cache=never)
    for done in (kept, again):
        assert torch.equal(done.adversarial.x, whole.adversarial.x)
        assert (
            done.report.get("accuracy.autoattack").value
            == whole.report.get("accuracy.autoattack").value
        )


@pytest.mark.slow
def test_what_misled_the_search_is_searched_again(robust, few, monkeypatch):
    """An engine whose network is easier to break: its breaks do not count, and are no excuse."""
    from robaudit.audit import context
    from robaudit.engine import Accelerated

    def biased(model, shape, precision, **_):
        return Accelerated(lambda x: model(x) + 3 * torch.eye(10)[0])

    threat = ThreatModel("linf", 0.1)
    honest = audit(robust, few, threat, Plan(probes=(Fast(),))).report.get("accuracy.fast")
    monkeypatch.setattr(context, "accelerate", biased)
    misled = audit(robust, few, threat, Plan(probes=(Fast(),))).report.get("accuracy.fast")
    assert misled.value == honest.value


@pytest.mark.parametrize(
    ("threat", "said"),
    [
        (ThreatModel("linf", 8, True), "8/255 was meant"),
        (ThreatModel("linf", 0.5), "grey one"),
        (ThreatModel("l2", 8), "as large as the box"),
        (ThreatModel("l1", 40), "grey one"),
    ],
)
def test_a_ball_that_holds_everything_is_said(robust, few, threat, said):
    """An image has 64 pixels: from corner to corner it is 1, 8 or 64."""
    warnings = audit(robust, first(few, 4), threat, Plan()).report.warnings
    assert any(said in line for line in warnings)


def test_autoattack_in_bf16_ends_in_float32(robust, few, monkeypatch):
    for run, how in ((apgd, {"steps": 4}), (fab, {"steps": 2}), (square, {"queries": 10})):
        monkeypatch.setattr(ensemble, run.__name__, partial(run, **how))
    plan = Plan(probes=(NATIVE,))
    some, threat = first(few, 8), ThreatModel("linf", 0.15)
    coarse, full = (
        audit(robust, some, threat, plan, precision=how).report.get("accuracy.autoattack").details
        for how in ("bf16", "fp32")
    )
    assert "bf16" in coarse["engine"]
    assert [*coarse["attacks"]] == [*full["attacks"], "apgd-ce-fp32"]
    assert [*coarse["passes"]] == [*coarse["attacks"]]


@pytest.mark.slow
def test_a_search_in_bf16_is_verified_in_float32(robust, few):
    threat = ThreatModel("linf", 0.15)
    found = audit(robust, few, threat, Plan(probes=(Fast(),)), precision="bf16")
    measured = found.report.get("accuracy.fast")
    assert "bf16" in measured.details["engine"]
    assert found.report.provenance.precision == "fp32, searches in bf16"
    judged = verify(robust, few.x, found.adversarial.x, few.y, threat)
    assert torch.equal(judged.breaks & found.adversarial.broken, found.adversarial.broken)
    full = audit(robust, few, threat, Plan(probes=(Fast(),))).report.get("accuracy.fast")
    assert measured.value == pytest.approx(full.value, abs=1 / len(few))


def test_a_pgd_searched_in_bf16_is_judged_in_float32(robust, standard, few):
    threat = ThreatModel("linf", 0.15)
    probes = PGD, Cw.like(PGD), Transfer(PGD, "standard.pt"), Calibration(PGD), Wci(PGD)
    plan = Plan(probes=probes, radii=(0.05,))
    how = {"surrogate": standard, "precision": "bf16"}
    found = audit(robust, few, threat, plan, **how)
    assert found.report.provenance.precision == "fp32, searches in bf16"
    names = {m.name for m in found.report.measurements if "searched_in" in m.details}
    adversarial = {f"calibration.adversarial_{of}" for of in ("ece", "brier", "nll")}
    attacked = {"accuracy.pgd", "accuracy.cw", "accuracy.transfer", "loss.robust"}
    assert names == attacked | adversarial | {"wci", "wci.bound", "trace.total"}
    assert {found.report.get(name).details["searched_in"] for name in names} == {"bf16"}
    for name in ("accuracy.pgd", "accuracy.cw"):
        assert "bf16" in found.report.get(name).details["engine"]
    judged = verify(robust, few.x, found.adversarial.x, few.y, threat)
    assert torch.equal(judged.breaks & found.adversarial.broken, found.adversarial.broken)
    plain = audit(robust, few, threat, plan, surrogate=standard, precision="fp32").report
    details = plain.get("accuracy.pgd").details
    assert details["searched_in"] == "fp32"
    assert "engine" not in details
    for m in (plain.get(name) for name in attacked):
        off = 1 / len(few) if m.unit == "fraction" else 0.01 * m.value
        assert found.report.get(m.name).value == pytest.approx(m.value, abs=off)


def test_a_pgd_says_why_it_was_searched_in_float32(robust, few):
    """Within so small a radius bfloat16 rounds perturbations away."""
    plan = Plan(probes=(PGD,))
    found = audit(robust, first(few, 16), ThreatModel("linf", 1e-4), plan, precision="bf16").report
    details = found.get("accuracy.pgd").details
    assert details["searched_in"] == "fp32"
    assert "bf16 is not used" in " ".join(details["engine_notes"])
    assert "engine" not in details
    assert found.provenance.precision == "fp32"
