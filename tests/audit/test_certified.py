"""Certified accuracy in an audit: exact where that is known, and held against every attack."""

from dataclasses import dataclass, replace

import pytest
import torch
from support.linear import nearest_mean, worst_margins
from torch import nn

import robaudit.certified
from robaudit.audit import Plan, audit
from robaudit.audit.probes import Certified, Distance, Fast, Pgd, Transfer
from robaudit.audit.probes import certified as probe
from robaudit.data import load_examples
from robaudit.report import verdicts
from robaudit.statistics import clopper_pearson
from robaudit.types import ThreatModel

THREAT = ThreatModel("linf", 0.1)
CROWN = Certified(method="crown")
# Finds nothing, so that later attacks break what it left.
FEEBLE = Pgd(steps=1, step_over_eps=1e-6)


@pytest.fixture(scope="module")
def net():
    return nearest_mean()


@pytest.fixture(scope="module")
def digits():
    return load_examples("digits", n=48)


def run(net, digits, *probes, **how):
    return audit(net, digits, THREAT, Plan(probes=probes), **how)


def test_of_a_linear_network_it_is_the_exact_robust_accuracy(net, digits):
    done = run(net, digits, Pgd(steps=10), CROWN)
    margins = worst_margins(net, digits.x, digits.y, THREAT.eps)
    exact = margins > 1e-6
    assert 5 < int(exact.sum()) < 43, "else this shows little"
    certified = done.outcomes["test.accuracy.certified"]
    assert torch.equal(certified, exact)
    found = done.report.get("accuracy.certified")
    assert found.value == float(exact.double().mean())
    limits = clopper_pearson(int(exact.sum()), 48, 0.95)
    assert (found.interval.low, found.interval.high) == (limits.low, limits.high)
    lower = done.outcomes["test.certified_lower"]
    tried = done.outcomes["test.accuracy.pgd"]
    assert torch.allclose(lower[tried], margins[tried], atol=1e-3)
    assert (lower[tried] <= margins[tried] + 1e-6).all()
    assert (lower[~tried] == -torch.inf).all()
    assert found.settings == {"method": "crown"}
    details = found.details
    assert details["tried"] == details["unbroken"] == int(tried.sum())
    assert details["open"] == int((tried & ~exact).sum())
    assert details["by_method"] == {"crown": int(exact.sum()), "alpha": 0, "branch": 0}
    assert found.doubts == []


def test_it_is_never_above_an_attack_and_both_ends_are_one_sentence(net, digits):
    done = run(net, digits, Fast(), CROWN)
    certified, fast = (done.outcomes[f"test.accuracy.{name}"] for name in ("certified", "fast"))
    assert not (certified & ~fast).any()
    low, high = 100 * float(certified.double().mean()), 100 * float(fast.double().mean())
    lines = [line for line in verdicts(done.report) if "48 images" in line]
    if low == high:
        wanted = f"Robust accuracy is exactly {low:.1f} % of these 48 images: they are certified"
        assert [line.startswith(wanted) for line in lines] == [True]
    else:
        assert lines == [
            f"Robust accuracy lies between {low:.1f} % (certified) and {high:.1f} % (fast) of "
            f"these 48 images; {high - low:.1f} % open."
        ]


@dataclass
class Calls:
    """Stands in for :func:`robaudit.certified.certify`, and keeps what it was asked."""

    certify: object
    asked: list

    def __call__(self, model, x, y, threat, **how):
        self.asked.append((model, how))
        return self.certify(model, x, y, threat, **how)


@pytest.fixture
def calls(monkeypatch):
    found = Calls(robaudit.certified.certify, [])
    monkeypatch.setattr(robaudit.certified, "certify", found)
    return found


def test_what_is_misclassified_or_broken_is_not_tried(net, digits, calls):
    done = run(net, digits, Pgd(steps=10), Transfer(Pgd(steps=10), "itself"), CROWN, surrogate=net)
    clean, pgd, transfer = (
        done.outcomes[f"test.accuracy.{name}"] for name in ("clean", "pgd", "transfer")
    )
    assert not clean.all()
    (_, how) = calls.asked[0]
    assert torch.equal(how["tried"], clean & pgd & transfer)


def test_where_no_attack_ran_a_short_pgd_leaves_out_what_it_breaks(net, digits, calls):
    done = run(net, digits, CROWN)
    found = done.report.get("accuracy.certified")
    assert found.details["searched_by"] == "PGD-10"
    tried = calls.asked[0][1]["tried"]
    alone = run(net, digits, Pgd(steps=10))
    assert torch.equal(tried, alone.outcomes["test.accuracy.pgd"])
    assert done.report.get("accuracy.pgd") is None
    line = next(line for line in verdicts(done.report) if "48 images" in line)
    assert "(PGD-10)" in line or "exactly" in line
    assert int(done.adversarial.broken.sum()) == int((~tried).sum())


@pytest.mark.parametrize("attack", [FEEBLE, Fast()], ids=["pgd", "fast"])
def test_what_is_broken_within_a_smaller_radius_is_not_tried(net, digits, calls, attack):
    plan = Plan(probes=(attack, CROWN), radii=(0.05, 0.08))
    done = audit(net, digits, replace(THREAT, eps=0.1), plan)
    (m,) = [m for m in done.report.measurements if m.name == f"accuracy.{attack.name}"]
    tried = calls.asked[0][1]["tried"]
    assert int(tried.sum()) == round(48 * m.details["curve"][-1]["value"])


def test_results_do_not_depend_on_the_attack_before(net, digits):
    """An attack saves time: what it breaks cannot be certified."""
    one, other = (run(net, digits, *probes) for probes in ((CROWN,), (Fast(), CROWN)))
    name = "test.accuracy.certified"
    assert torch.equal(one.outcomes[name], other.outcomes[name])


@pytest.fixture
def lying(monkeypatch):
    """Every image that is tried is certified, as an error in the bounds would have it."""
    honest = robaudit.certified.certify

    def certify(model, x, y, threat, *, tried, **how):
        found = honest(model, x, y, threat, tried=tried, **how)
        return replace(found, certified=tried, lower=torch.where(tried, 1.0, -torch.inf).double())

    monkeypatch.setattr(robaudit.certified, "certify", certify)
    monkeypatch.setattr(probe, "_QUICK", FEEBLE)


@pytest.mark.parametrize(
    ("later", "words"),
    [
        (Pgd(steps=10), "by PGD"),
        (Fast(), "by the fast tier"),
        (Transfer(Pgd(steps=10), "itself"), "by transferred images"),
        (Distance(), "by FAB"),
    ],
    ids=["pgd", "fast", "transfer", "fab"],
)
def test_a_certificate_that_an_attack_breaks_is_said_aloud(net, digits, lying, later, words):
    done = run(net, digits, CROWN, later, surrogate=net)
    found = done.report.get("accuracy.certified")
    assert (found.status, found.value, found.interval) == ("failed", None, None)
    certified = done.outcomes["test.accuracy.certified"]
    exact = worst_margins(net, digits.x, digits.y, THREAT.eps) > 0
    broken = digits.index[certified & ~exact].tolist()
    assert found.reason.startswith("certified examples are broken: ")
    assert words in found.reason
    listed = found.reason.removeprefix("certified examples are broken: ").split(" by ")[0]
    assert {int(word) for word in listed.split(" and ")[0].split(", ")} <= set(broken)
    assert "please report it" in found.reason
    assert not any("certified" in line for line in verdicts(done.report))


def test_an_attack_before_a_false_certificate_is_not_contradicted(net, digits, lying):
    """What is broken already is not certified, whatever the bounds say."""
    done = run(net, digits, Fast(), CROWN)
    assert torch.equal(
        done.outcomes["test.accuracy.certified"], done.outcomes["test.accuracy.fast"]
    )
    assert done.report.get("accuracy.certified").details["open"] == 0


@pytest.mark.parametrize("attack", [Fast(), Distance()], ids=["fast", "fab"])
def test_a_radius_beyond_an_adversarial_image_is_said_aloud(net, digits, attack, monkeypatch):
    def wide(model, x, y, *args, **how):
        return torch.full((len(x),), 0.5, dtype=torch.float64)

    monkeypatch.setattr(robaudit.certified, "certified_radii", wide)
    done = run(net, digits, attack, replace(CROWN, radius=True))
    for name in ("accuracy.certified", "distance.certified"):
        assert done.report.get(name).status == "failed"
        assert "certified examples are broken" in done.report.get(name).reason


def test_certified_radii_are_those_of_the_linear_network(net, digits):
    done = run(net, digits, Distance(), replace(CROWN, radius=True))
    radii = done.outcomes["test.certified_radius"]
    for row in (0, 7, 19):
        radius = float(radii[row])
        x, y = digits.x[row : row + 1], digits.y[row : row + 1]
        assert worst_margins(net, x, y, radius) > -1e-6
        assert worst_margins(net, x, y, radius + 1e-3) < 0 or radius == 4 * THREAT.eps
    found = done.report.get("distance.certified")
    assert found.value == float(radii.median(dim=0).values) or found.value == float(
        radii.sort().values[23:25].mean()
    )
    assert found.unit == "linf"
    assert found.interval.low <= found.value <= found.interval.high
    assert found.value <= done.report.get("distance.median").value
    assert (radii[~done.outcomes["test.accuracy.clean"]] == 0).all()
    certified = done.outcomes["test.accuracy.certified"]
    assert (radii[certified] >= THREAT.eps).all()


def test_masked_gradients_are_no_doubt_about_a_proof(digits, net):
    steep = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    steep[1].weight.data = net[1].weight.data * 0
    steep[1].bias.data = torch.eye(10)[3]
    done = run(steep, digits, Pgd(steps=5), CROWN)
    found = done.report.get("accuracy.certified")
    assert found.doubts == []
    assert found.value == float((digits.y == 3).double().mean())
    # and a low bound casts no doubt on the attack
    low = run(net, digits, Pgd(steps=5), Certified(method="crown", budget=0))
    assert low.report.get("accuracy.pgd").doubts == []


class Noisy(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x + 0.05 * torch.randn_like(x))


@pytest.mark.parametrize(
    ("wrapped", "words"),
    [
        (Noisy, "not certifiable: the network draws at random"),
        (lambda net: nn.Sequential(*net, nn.Softmax(1), nn.Linear(10, 10)), "not certifiable: "),
    ],
    ids=["random", "softmax"],
)
def test_what_cannot_be_certified_fails_alone_with_a_reason(net, digits, wrapped, words):
    done = run(wrapped(net), digits, Pgd(steps=1), replace(CROWN, radius=True))
    for name in ("accuracy.certified", "distance.certified"):
        found = done.report.get(name)
        assert (found.status, found.value) == ("failed", None)
        assert found.reason.startswith(words)
    assert done.report.get("accuracy.pgd").status == "ok"
    assert "test.accuracy.certified" not in done.outcomes


def test_the_network_itself_is_certified_whatever_gradients_go_through(net, digits, calls):
    named = nn.Sequential(nn.Flatten(), nn.Identity(), net[1])
    done = run(named, digits, Pgd(steps=5), CROWN, straight_through=("1",))
    assert calls.asked[0][0] is named
    assert done.report.get("accuracy.pgd").settings["straight_through"] == ["1"]
    assert done.report.get("accuracy.certified").settings == {"method": "crown"}


def test_an_interrupted_run_goes_on(net, digits):
    kept = {}

    def until(limit):
        def cache(name, compute):
            if name not in kept:
                if name.startswith(("certified-", "radii-")) and len(kept) >= limit:
                    raise KeyboardInterrupt
                kept[name] = compute()
            return kept[name]

        return cache

    def again(cache):
        return run(net, digits, Fast(), replace(CROWN, radius=True), cache=cache)

    whole = run(net, digits, Fast(), replace(CROWN, radius=True))
    again(until(1000))
    assert any(name.startswith("certified-") for name in kept)
    pieces = len(kept)
    first = next(name for name in kept if name.startswith("certified-"))
    before = {name: kept[name] for name in list(kept)[: list(kept).index(first) + 1]}
    kept.clear()
    kept |= before
    done = again(until(pieces))
    for name, rows in whole.outcomes.items():
        assert torch.equal(done.outcomes[name], rows), name
    # nothing is computed again
    done = again(until(0))
    assert (
        done.report.get("accuracy.certified").value == whole.report.get("accuracy.certified").value
    )


@pytest.mark.parametrize("wrong", [{"budget": -1.0}, {"budget": float("nan")}, {"splits": -1}])
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(Exception, match=next(iter(wrong))):
        Certified(**wrong)
