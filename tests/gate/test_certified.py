"""Rules on certified accuracy: decided by proof, example by example."""

from dataclasses import replace

import pytest
import torch
from support import console
from support.linear import nearest_mean, worst_margins
from torch import nn

import robaudit.certified
from robaudit.audit import Plan, audit
from robaudit.audit.context import Context
from robaudit.audit.probes import Certified, Fast, Pgd
from robaudit.audit.rows import RowAttacks
from robaudit.data import load_examples
from robaudit.gate.baseline import Baseline
from robaudit.gate.policy import policy_schema, read_policy
from robaudit.gate.run import Population, gate
from robaudit.types import ThreatModel

THREAT = ThreatModel("linf", 0.1)
N = 96


@pytest.fixture(scope="module")
def net():
    return nearest_mean()


@pytest.fixture(scope="module")
def digits():
    return load_examples("digits", n=N)


@pytest.fixture(scope="module")
def exact(net, digits):
    """How many are robust, by the closed form."""
    return int((worst_margins(net, digits.x, digits.y, THREAT.eps) > 0).sum())


@pytest.fixture
def decide(net, digits, tmp_path):
    def of(rules, model=net, **how):
        path = tmp_path / "robaudit.toml"
        path.write_text(f'[gate]\ndata = "digits"\npreset = "quick"\n{rules}')
        policy = read_policy(path)
        verdict = gate(model, policy, [Population(policy.suites[0], digits, THREAT)], **how)
        return verdict.decisions[0]

    return of


def rule(**said):
    lines = "".join(f"{key} = {value}\n" for key, value in said.items())
    return f'[gate.metrics."accuracy.certified"]\n{lines}'


def test_at_the_exact_share_it_passes_and_one_example_above_it_fails(decide, exact):
    passed = decide(rule(min=exact / N))
    assert (passed.outcome, passed.examples) == ("pass", N)
    assert passed.interval.low == passed.interval.high == passed.value == exact / N
    assert "withstood PGD-10 and were certified" in passed.sentence
    assert decide(rule(min=(exact + 1) / N)).outcome == "fail"
    assert decide(rule(max=exact / N)).outcome == "pass"
    assert decide(rule(max=(exact - 1) / N)).outcome == "fail"


def test_what_is_not_certified_is_no_success_however_robust_it_looks(decide, exact, monkeypatch):
    honest = robaudit.certified.certify

    def nothing(*given, **how):
        found = honest(*given, **how)
        return replace(found, certified=torch.zeros_like(found.certified))

    monkeypatch.setattr(robaudit.certified, "certify", nothing)
    assert exact > N // 4
    assert decide(rule(min=0.02)).outcome == "fail"


def test_what_pgd_breaks_is_not_tried(decide, net, digits, monkeypatch):
    honest, asked = robaudit.certified.certify, []

    def certify(model, x, y, threat, **how):
        asked.extend(how["index"].tolist())
        return honest(model, x, y, threat, **how)

    monkeypatch.setattr(robaudit.certified, "certify", certify)
    decide(rule(min=0.3), exhaustive=True)
    pgd = audit(net, digits, THREAT, Plan(probes=(Pgd(steps=10),))).outcomes["test.accuracy.pgd"]
    assert sorted(asked) == digits.index[pgd].tolist()


def test_a_network_that_cannot_be_certified_is_inconclusive_and_other_rules_are_decided(
    net, digits, tmp_path
):
    soft = nn.Sequential(*net, nn.Softmax(1), nn.Linear(10, 10, bias=False)).eval()
    soft[3].weight.data = 50 * torch.eye(10)
    path = tmp_path / "robaudit.toml"
    clean = '[gate.metrics."accuracy.clean"]\nmin = 0.1\n'
    path.write_text(f'[gate]\ndata = "digits"\n{clean}{rule(min=0.01)}')
    policy = read_policy(path)
    verdict = gate(soft, policy, [Population(policy.suites[0], digits, THREAT)])
    first, second = verdict.decisions
    assert (first.outcome, second.outcome) == ("pass", "inconclusive")
    assert second.reason.startswith("not certifiable: ")


def certified_falsely(monkeypatch):
    honest = robaudit.certified.certify

    def certify(*given, tried, **how):
        found = honest(*given, tried=tried, **how)
        return replace(found, certified=tried)

    monkeypatch.setattr(robaudit.certified, "certify", certify)


def test_rows_that_an_attack_breaks_after_their_certificate_are_said(net, digits, monkeypatch):
    certified_falsely(monkeypatch)
    settings = {"certified": Certified(), "fast": Fast()}
    attacks = RowAttacks(Context(net, {"test": digits}, THREAT, 0, "auto"), settings)
    rows = torch.nonzero(attacks.stands("clean", torch.arange(N)))[:, 0]
    certified = rows[::2]
    assert attacks.stands("certified", certified).all()
    assert attacks.doubts("certified") == []
    broken = rows[~attacks.stands("fast", rows)]
    (text,) = attacks.doubts("certified")
    assert text.startswith("certified examples are broken: ")
    first = sorted(set(broken.tolist()) & set(certified.tolist()))[0]
    assert f" {int(digits.index[first])}" in text.split(" by ")[0]
    # In the other order, what is broken is not certified.
    again = RowAttacks(Context(net, {"test": digits}, THREAT, 0, "auto"), settings)
    stood = again.stands("fast", rows)
    assert torch.equal(again.stands("certified", rows), stood)
    assert again.doubts("certified") == []


def test_no_policy_lets_a_broken_certificate_pass(decide, monkeypatch):
    wanted = 'doubts = "allow"\n' + rule(min=0.01)
    assert decide(wanted).outcome == "pass"
    monkeypatch.setattr(RowAttacks, "doubts", lambda self, name: ["certified examples are broken"])
    found = decide(wanted)
    assert found.outcome == "inconclusive"
    assert "certified examples are broken" in found.reason


def test_a_drop_is_held_against_a_baseline_s_certificates(decide, net, digits):
    # With the settings of the gate, which the quick preset gives it.
    done = audit(net, digits, THREAT, Plan(probes=(Pgd(steps=10), Certified())))
    outcomes = {name: rows.numpy() for name, rows in done.outcomes.items()}
    baseline = Baseline("main", done.report, outcomes)
    found = decide(rule(max_drop=0.0), baselines=[baseline])
    assert found.outcome == "pass"
    assert found.baseline == done.report.get("accuracy.certified").value
    worse = nearest_mean()
    worse[1].bias.data.zero_()
    assert decide(rule(max_drop=0.02), worse, baselines=[baseline]).outcome == "fail"


def test_it_is_in_the_schema_and_in_a_first_policy(net, digits):
    from robaudit.gate.initial import initial_policy

    assert '"accuracy.certified"' in policy_schema()
    assert "distance.certified" not in policy_schema()
    done = audit(net, digits, THREAT, Plan(probes=(Fast(), Certified(radius=True))))
    first = initial_policy(done.report)
    assert '[gate.metrics."accuracy.certified"]' in first
    assert "distance.certified" not in first


def test_the_command_passes_and_fails_by_proof(tmp_path, monkeypatch, net):
    monkeypatch.chdir(tmp_path)
    torch.save(net.state_dict(), "linear.pt")
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef linear():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    words = ("gate", "linear.pt", "--arch", "net.py:linear", "--normalize", "none", "--quiet")
    head = '[gate]\ndata = "digits"\neps = 0.1\nn = 96\n'
    for least, code in ((0.3, 0), (0.95, 1)):
        (tmp_path / "robaudit.toml").write_text(head + rule(min=least))
        ran = console.robaudit(*words, "--policy", "robaudit.toml")
        assert (ran.code, ran.err) == (code, ""), ran.err
        assert "were certified" in " ".join(ran.out.split())
