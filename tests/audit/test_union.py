"""The union of norms on a linear network, whose distances have a closed form in every norm."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from support import console
from support.linear import distances, nearest_mean

import robaudit.attacks
from robaudit.attacks.narrowing import Round
from robaudit.audit import Plan, audit
from robaudit.audit.journal import open_journal
from robaudit.audit.plan import planned
from robaudit.audit.probes import Fast, Pgd, Union
from robaudit.audit.probes.union import usual_union
from robaudit.data import load_examples
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.gate.baseline import Baseline, before
from robaudit.gate.initial import initial_policy
from robaudit.gate.policy import read_policy
from robaudit.gate.run import Population, gate
from robaudit.measures import find
from robaudit.report import render
from robaudit.report.html.report_page import to_html
from robaudit.statistics import clopper_pearson
from robaudit.types import ThreatModel, parse_threats

N = 32
DARKEST, CONTRAST = 0.45, 0.1
THREATS = tuple(ThreatModel(*one) for one in (("linf", 0.0118), ("l2", 0.0475), ("l1", 0.16)))
LINF, L2, L1 = THREATS


@pytest.fixture(scope="module", autouse=True)
def few_steps():
    """Enough on a linear network."""
    with pytest.MonkeyPatch.context() as patched:
        tier, norms = import_module("robaudit.attacks.fast"), ("linf", "l2", "l1")
        patched.setattr(tier, "_CE", {norm: Round(1, 25) for norm in norms})
        patched.setattr(tier, "_ROUNDS", {norm: (Round(6, 25),) for norm in norms})
        patched.setattr(tier, "_PATCHES", {"linf": 10})
        yield


@pytest.fixture(scope="module")
def net():
    """On images of little contrast, as it is on their originals."""
    made = nearest_mean()
    weight = made[1].weight.data / CONTRAST
    made[1].weight.data, made[1].bias.data = weight, made[1].bias.data - DARKEST * weight.sum(1)
    return made


@pytest.fixture(scope="module")
def digits():
    """Far from the box, so that distances are those of the whole space."""
    few = load_examples("digits", n=N)
    return replace(few, x=DARKEST + CONTRAST * few.x)


@pytest.fixture(scope="module")
def exact(net, digits):
    """By norm, which examples are robust."""
    found = {one: distances(net, digits.x, digits.y, one.norm) for one in THREATS}
    assert all(((d - one.eps).abs() > 0.01 * one.eps).all() for one, d in found.items()), (
        "an example so near the boundary shows nothing"
    )
    robust = {one: d > one.eps for one, d in found.items()}
    union = torch.stack(list(robust.values())).all(0)
    clean = found[LINF] > 0
    assert 3 < int(union.sum()) < min(int(rows.sum()) for rows in robust.values())
    assert all(int(rows.sum()) < int(clean.sum()) for rows in robust.values())
    return robust


def run(net, digits, *probes, threat=LINF):
    return audit(net, digits, threat, Plan(probes=probes))


@pytest.fixture(scope="module")
def whole(net, digits):
    return run(net, digits, Union(THREATS, each=True))


@pytest.mark.parametrize(("order", "threat"), [((0, 1, 2), LINF), ((2, 0, 1), L1)])
def test_it_is_the_closed_form_in_any_order(net, digits, exact, order, threat):
    done = run(net, digits, Union(tuple(THREATS[at] for at in order)), threat=threat)
    wanted = torch.stack(list(exact.values())).all(0)
    assert torch.equal(done.outcomes["test.accuracy.union"], wanted)
    found = done.report.get("accuracy.union")
    assert found.value == int(wanted.sum()) / N
    limits = clopper_pearson(int(wanted.sum()), N, 0.95)
    assert (found.interval.low, found.interval.high) == (limits.low, limits.high)
    rows = found.details["union"]
    assert rows[0]["norm"] == threat.norm, "the audit's own norm comes first"
    assert [row["tried"] for row in rows[1:]] == [row["left"] for row in rows[:-1]]
    assert rows[-1]["left"] == int(wanted.sum())
    first = done.outcomes["test.union.first"]
    assert torch.equal(first == -2, wanted)
    for at, row in enumerate(rows):
        assert row["broken"] == int((first == at).sum())


def test_each_norm_s_own_accuracy_and_what_it_alone_breaks(exact, whole):
    found = whole.report.get("accuracy.union")
    for row, one in zip(found.details["union"], THREATS, strict=True):
        assert torch.equal(whole.outcomes[f"test.union.{one.norm}"], exact[one])
        assert row["accuracy"] == int(exact[one].sum()) / N >= found.value
        others = [rows for other, rows in exact.items() if other is not one]
        alone = ~exact[one] & torch.stack(others).all(0)
        assert row["alone"] == int(alone.sum())
    table = render([whole.report], "md")
    assert "Every correctly classified example was attacked in every norm." in table
    assert "Union of norms" in to_html(whole.report)
    line = (
        f"{100 * found.value:.1f} % withstand the attacks in all of linf 0.0118, l2 0.0475 and l1 0"
    )
    assert line in render([whole.report], "table", 200)


class Calls:
    """Stands in for the fast tier, and keeps what it was asked."""

    def __init__(self, attack):
        self.attack, self.asked = attack, []

    def __call__(self, model, x, y, threat, **how):
        self.asked.append((threat, how["index"].tolist()))
        return self.attack(model, x, y, threat, **how)


@pytest.fixture
def calls(monkeypatch):
    found = Calls(robaudit.attacks.fast)
    monkeypatch.setattr(robaudit.attacks, "fast", found)
    return found


def test_what_one_norm_broke_is_not_attacked_in_the_next(net, digits, exact, calls):
    run(net, digits, Union(THREATS))
    (_, first), (_, second), (_, third) = calls.asked
    clean = distances(net, digits.x, digits.y, "l2") > 0
    assert first == digits.index[clean].tolist()
    assert second == digits.index[exact[LINF]].tolist()
    assert third == digits.index[exact[LINF] & exact[L2]].tolist()


def test_what_earlier_attacks_broke_is_taken_over_in_their_own_norm(net, digits, exact, calls):
    plain = run(net, digits, Pgd(steps=20))
    pgd = plain.outcomes["test.accuracy.pgd"]
    done = run(net, digits, Pgd(steps=20), Union(THREATS))
    assert calls.asked[0] == (LINF, digits.index[pgd].tolist())
    found = done.report.get("accuracy.union")
    clean = done.outcomes["test.accuracy.clean"]
    assert found.details["union"][0]["before"] == int((clean & ~pgd).sum()) > 0
    assert found.settings["reused"] == ["pgd"]
    assert torch.equal(done.outcomes["test.accuracy.union"], torch.stack([*exact.values()]).all(0))
    assert "what was known of PGD was taken over" in render([done.report], "md")


def test_the_fast_tier_is_not_run_twice_on_one_ball(net, digits, whole, calls):
    done = run(net, digits, Fast(), Union(THREATS))
    assert [threat for threat, _ in calls.asked] == [LINF, L2, L1]  # linf by the probe itself
    union = done.outcomes["test.accuracy.union"]
    assert torch.equal(union, whole.outcomes["test.accuracy.union"])


def test_within_a_smaller_ball_earlier_images_count_where_they_lie_inside(net, digits):
    smaller = ThreatModel("linf", LINF.eps / 2)
    done = run(net, digits, Pgd(steps=20), Union((smaller, L2), each=True))
    robust = distances(net, digits.x, digits.y, "linf") > smaller.eps
    assert torch.equal(done.outcomes["test.union.linf"], robust)
    assert not robust.eq(done.outcomes["test.accuracy.pgd"]).all(), "else this shows nothing"


def test_only_images_inside_their_own_ball_and_misclassified_count(net, digits, monkeypatch):
    honest = robaudit.attacks.fast

    def cheats(model, x, y, threat, **how):
        wide = replace(threat, eps=2 * threat.eps) if threat.norm != "l2" else threat
        return honest(model, x, y, wide, **how)

    monkeypatch.setattr(robaudit.attacks, "fast", cheats)
    done = run(net, digits, Union(THREATS, each=True))
    clean = done.outcomes["test.accuracy.clean"]
    exact = {one: distances(net, digits.x, digits.y, one.norm) > one.eps for one in THREATS}
    for one in THREATS:
        standing = done.outcomes[f"test.union.{one.norm}"]
        assert (standing | ~exact[one])[clean].all(), "robust examples are never counted as broken"
    # Ends of steps of twice the radius lie outside; an honest ball's count.
    assert torch.equal(done.outcomes["test.union.l2"], exact[L2])
    assert int(done.outcomes["test.union.linf"].sum()) > int(exact[LINF].sum())


def test_its_finds_in_the_audit_s_ball_are_the_audit_s(net, digits, exact):
    done = run(net, digits, Union((LINF, L2)))
    assert torch.equal(done.adversarial.broken, ~exact[LINF] & done.outcomes["test.accuracy.clean"])


def test_the_usual_union_has_the_audit_s_own_radius():
    threats = usual_union("cifar10", ThreatModel("l2", 1.0))
    assert [(one.norm, one.eps) for one in threats] == [("linf", 8 / 255), ("l2", 1.0), ("l1", 12)]
    with pytest.raises(NotMeasuredError, match="no usual radius is known in l2 and l1 for mine"):
        usual_union("mine.npz", ThreatModel("linf", 0.1))


def test_on_other_data_it_fails_and_says_what_to_name(net, digits):
    found = run(net, replace(digits, name="mine.npz"), Union()).report.get("accuracy.union")
    assert found.status == "failed"
    assert "--union" in found.reason


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("linf:8/255", "two norms or more"),
        ("linf:0.1,l2", "'l2' is not a norm and its radius"),
        ("linf:0.1,l3:1", "unknown norm 'l3'"),
        ("linf:0.1,l2:much", "eps is not a number: 'much'"),
        ("linf:0.1,linf:0.2", "linf is named twice"),
        ("linf:0.1,l2:0", "eps must be positive"),
        ("linf:8,l2:1", "every image may become any other"),
        ("", "'' is not a norm and its radius"),
    ],
)
def test_a_bad_list_is_refused(text, said):
    with pytest.raises(UsageError) as refused:
        parse_threats(text)
    assert said in refused.value.message
    ran = console.robaudit("audit", console.ROBUST, "--union", text, "--quiet")
    assert ran.code == 2
    assert ran.flat.startswith(f"robaudit: --union {text}: ")
    assert said in ran.flat


def test_a_preset_takes_a_union():
    plan = planned("quick", ["fast"], "linf:0.1,l2:0.5")
    assert plan.get(Union).threats == (ThreatModel("linf", 0.1), ThreatModel("l2", 0.5))
    names = [probe.name for probe in plan.probes]
    assert names[:3] == ["pgd", "fast", "union"]
    assert planned("quick", union_each=True).get(Union) == Union(each=True)
    assert find("accuracy.union").stages == ("clean", "union")


POLICY = """
[gate]
data = "digits"
union = "linf:0.0118,l2:0.0475,l1:0.16"
[gate.metrics."accuracy.union"]
"""


@pytest.fixture
def policy(tmp_path):
    def of(rule):
        path = tmp_path / "robaudit.toml"
        path.write_text(POLICY + rule)
        return read_policy(path)

    return of


def test_a_gate_decides_it_example_by_example(net, digits, exact, policy):
    count = int(torch.stack(list(exact.values())).all(0).sum())

    def decided(rule):
        asked = policy(rule)
        return gate(net, asked, [Population(asked.suites[0], digits, LINF)]).decisions[0]

    passed = decided(f"min = {count / N}")
    assert (passed.outcome, passed.value) == ("pass", count / N)
    assert "withstood the attacks in every norm of the union" in passed.sentence
    assert decided(f"min = {(count + 1) / N}").outcome == "fail"


def test_a_policy_refuses_a_bad_list_with_its_line(policy, tmp_path):
    path = tmp_path / "robaudit.toml"
    path.write_text(POLICY.replace("l1:0.16", "l1") + "min = 0.1")
    with pytest.raises(UsageError, match=r"robaudit\.toml:4: gate\.union: ") as refused:
        read_policy(path)
    assert "'l1' is not a norm and its radius" in str(refused.value)


def test_a_baseline_that_also_counts_other_attacks_is_not_compared(net, digits, policy):
    rule = policy("max_drop = 0.1").suites[0].rules[0]

    def compared(*probes):
        done = run(net, digits, *probes)
        outcomes = {name: rows.numpy() for name, rows in done.outcomes.items()}
        report, index = done.report, digits.index.numpy()
        baseline = Baseline("main", report, outcomes)
        described = Union(THREATS).described
        return before(
            rule, [baseline], report.data, report.threat, index, digits.y.numpy(),
            lambda name: described(LINF), "robaudit.toml",
        )  # fmt: skip

    done = compared(Union(THREATS))
    assert (done.chain, done.successes) == (("clean", "union"), int(done.outcomes.sum()))
    with pytest.raises(UsageError, match="--attack union"):
        compared(Pgd(steps=20), Union(THREATS))


def test_a_first_policy_has_the_report_s_union(whole, tmp_path):
    path = tmp_path / "first.toml"
    path.write_text(initial_policy(whole.report))
    suite = read_policy(path).suites[0]
    assert parse_threats(suite.union) == THREATS
    assert "accuracy.union" in {rule.metric for rule in suite.rules}


def test_its_pieces_are_kept_norm_by_norm(net, digits, tmp_path):
    """What an interrupted audit had finished is not done again, and belongs to its own ball."""
    kept = open_journal(tmp_path / "state", {"of": "this test"}).piece
    made = []

    def counted(name, compute):
        def run():
            made.append(name)
            return compute()

        return kept(name, run)

    plan = Plan(probes=(Union(THREATS),))
    first, again = (audit(net, digits, LINF, plan, cache=counted) for _ in range(2))
    assert len(made) == len(set(made)) >= 6
    union = first.outcomes["test.accuracy.union"]
    assert torch.equal(union, again.outcomes["test.accuracy.union"])
    assert torch.equal(union, run(net, digits, Union(THREATS)).outcomes["test.accuracy.union"])
