"""A new measure is one file: its probe's row in the registry is all that any view needs."""

import json
import random
import textwrap
from dataclasses import dataclass

import pytest
from support.batch_runs import create, log_done, log_listed
from support.batch_runs import report as of_a_run
from support.console import SAMPLES, robaudit

import robaudit as ra
from robaudit import measures
from robaudit.audit import probes
from robaudit.audit.probe import Probe
from robaudit.batch.leaderboard import leaderboards
from robaudit.batch.leaderboard_table import leaderboard_tables
from robaudit.batch.study import studies
from robaudit.errors import UsageError
from robaudit.gate.initial import initial_policy
from robaudit.gate.policy import policy_schema, read_policy
from robaudit.gate.run import Population, gate
from robaudit.measures import measure
from robaudit.report import render
from robaudit.report.html.report_page import to_html
from robaudit.schema import Measurement

TOY = '''
from dataclasses import dataclass

from robaudit.audit.numbers import estimate
from robaudit.audit.probe import Attack, Probe
from robaudit.measures import measure


@dataclass(frozen=True)
class Confidence(Probe):
    """The largest softmax probability, on clean images."""

    name = "confidence"
    measures = (
        measure("calibration.confidence", "Mean confidence", low=0.0, high=1.0, better="higher",
                heading="Confi-\\ndence", study="confidence"),
    )

    def price(self, n, n_train):
        return n

    def run(self, context):
        logits = context.runner().logits(context.splits[context.main].x).cpu()
        values = logits.softmax(1).amax(1)
        context.keep(context.main, "calibration.confidence", values)
        error = float(values.std()) / len(values) ** 0.5
        name, value = self.measures[0].name, float(values.mean())
        return [estimate(name, context.main, value, error, n=len(values))]


@dataclass(frozen=True)
class OneStep(Attack):
    """One step of PGD."""

    name = "onestep"
    measures = (
        measure("accuracy.onestep", "Robust accuracy, {attack}", attack="One step", place=15,
                stages=("clean", "onestep"), passes=3, heading="One-step\\nacc. %"),
    )

    def run(self, context):
        from robaudit.attacks import pgd
        from robaudit.audit.ensembles import confirmed

        return confirmed(context, self, "one step", lambda run: run.by(pgd, steps=1))
'''
POLICY = """
[gate]
data = "digits"
preset = "quick"
[gate.metrics."accuracy.onestep"]
min = 0.01
[gate.metrics."calibration.confidence"]
min = 0.1
max = 0.2
"""


@pytest.fixture
def afresh(monkeypatch):
    """A registry that is read anew in the test, and after it."""
    monkeypatch.setattr(measures, "_registry", {})
    monkeypatch.setattr(measures, "_loaded", False)
    probes.known.cache_clear()
    yield
    probes.known.cache_clear()


@pytest.fixture
def install(afresh, tmp_path, monkeypatch):
    """Installs a package with entry points for probes."""

    def installed(code, **points):
        (tmp_path / "toy_probes.py").write_text(code)
        folder = tmp_path / "toy-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        (folder / "entry_points.txt").write_text("\n".join(["[robaudit.probes]", *lines]))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(__import__("sys").modules, "toy_probes", raising=False)

    return installed


@pytest.fixture
def toys(install):
    install(TOY, confidence="toy_probes:Confidence", onestep="toy_probes:OneStep")
    import toy_probes

    return toy_probes.Confidence(), toy_probes.OneStep()


@pytest.fixture
def reports(toys, robust, standard, few, threat):
    """Of two networks, by a preset with two probes of one's own."""
    return [
        ra.run_audit(model, few, threat, preset="quick", probes=toys)
        for model in (robust, standard)
    ]


@pytest.fixture(scope="session")
def standard():
    return ra.load(SAMPLES / "standard.pt", device="cpu")


@pytest.mark.slow
def test_it_is_in_every_view_of_reports(reports):
    for text in ("table", "md"):
        shown = render(reports[:1], text)
        assert "Mean confidence" in shown
        assert "Robust accuracy, One step" in shown
        # In reading order: the attack's place is before PGD's.
        assert shown.index("One step") < shown.index("PGD-10")
        both = render(reports, text)
        assert "Confi-" in both
        assert "One-step" in both
    csv = render(reports, "csv")
    assert csv.count("calibration.confidence") == csv.count("accuracy.onestep") == 2
    assert "Confi-" in render(reports, "latex")
    found = {m["name"]: m for m in json.loads(render(reports[:1], "json"))["measurements"]}
    assert 0 < found["calibration.confidence"]["value"] <= 1
    assert found["accuracy.onestep"]["value"] >= found["accuracy.pgd"]["value"]
    page = to_html(reports[0])
    assert "Mean confidence" in page
    assert "One step" in page


def test_the_command_line_runs_an_added_attack(toys):
    done = robaudit("attack", SAMPLES / "robust.pt", "--n", 16, "--attack", "pgd,onestep", "--json")
    assert done.code == 0, done.err
    assert "accuracy.onestep" in {m["name"] for m in json.loads(done.out)["measurements"]}
    refused = robaudit("attack", SAMPLES / "robust.pt", "--attack", "twostep")
    assert (refused.code, "onestep" in refused.flat) == (2, True)


@pytest.mark.slow
def test_a_gate_rules_on_it(reports, robust, few, threat, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    policy = read_policy(path)
    verdict = gate(robust, policy, [Population(policy.suites[0], few, threat)])
    assert [rule.outcome for rule in verdict.decisions] == ["pass", "pass", "fail"]
    assert "withstood One step" in verdict.decisions[0].sentence
    assert "calibration.confidence" in policy_schema()
    first = initial_policy(reports[0])
    assert '[gate.metrics."accuracy.onestep"]' in first
    assert "min = " in first.split('[gate.metrics."calibration.confidence"]')[1].splitlines()[1]
    path.write_text(first)
    assert len(read_policy(path).suites[0].rules) == first.count("[gate.metrics.")


def test_leaderboards_and_studies_have_it(toys, tmp_path):
    chance, directory = random.Random(0), create(tmp_path / "run")
    for at in range(4):
        source = f"{at}.pt"
        made = of_a_run(source, 0.2 + 0.1 * at, chance)
        clean, strongest, *others = made.measurements
        attacked = strongest.model_copy(update={"name": "accuracy.onestep", "settings": {}})
        own = Measurement(name="calibration.confidence", value=0.2 + 0.1 * at, n=1000)
        update = {"measurements": [clean, attacked, own, *others]}
        log_listed(directory, source, f"{at:012d}")
        log_done(directory, f"{at:012d}", made.model_copy(update=update))
    state = directory.state()
    (board,) = leaderboards(state)
    assert board.attack == "One step"
    assert any("One step" in column.heading for column in leaderboard_tables([board])[0].columns)
    (study,) = studies(state)
    assert "calibration.confidence" in {pair.measure for pair in study.pairs}


def test_a_probe_of_a_notebook_needs_no_installation(afresh, robust, few, threat):
    @dataclass(frozen=True)
    class Brightness(Probe):
        name = "brightness"
        measures = (measure("data.brightness", "Mean brightness", low=0.0, high=1.0),)

        def run(self, context):
            value = float(context.splits[context.main].x.mean())
            return [Measurement(name="data.brightness", value=value, n=len(few))]

    report = ra.run_audit(robust, few, threat, preset="quick", probes=[Brightness()])
    assert report.get("data.brightness").value == pytest.approx(float(few.x.mean()))
    assert "Mean brightness" in render([report], "table")
    assert [row.name for row in measures.known()][-1] == "data.brightness"


def test_a_value_outside_its_bounds_is_refused(toys):
    report = of_a_run("a.pt", 0.5, random.Random(0))
    wrong = Measurement(name="calibration.confidence", value=1.5)
    with pytest.raises(ValueError, match=r"1\.5 is not in \[0, 1\]"):
        type(report)(**{**dict(report), "measurements": [wrong]})


def test_two_measures_of_one_name_are_refused(afresh):
    measures.register([measure("toy.one", "One")])
    measures.register([measure("toy.one", "One")])
    with pytest.raises(ValueError, match=r"'toy\.one' is registered already"):
        measures.register([measure("toy.one", "Another")])


def test_a_plan_has_one_probe_for_each_measure():
    with pytest.raises(UsageError, match=r"two probes of a plan give accuracy\.pgd"):
        ra.audit.Plan(probes=(probes.Pgd(1), probes.Pgd(2)))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("toy_probes:Missing", "AttributeError"),
        ("no_such_module:Probe", "ModuleNotFoundError"),
        ("toy_probes:dataclass", "no subclass"),
        ("toy_probes:Clash", "describes accuracy.pgd in another way"),
    ],
)
def test_a_broken_entry_point_is_left_out_with_a_warning(install, value, reason):
    clash = """
    class Clash(Probe):
        name = "clash"
        measures = (measure("accuracy.pgd", "Mine"),)
    """
    install(TOY + textwrap.dedent(clash), mine=value)
    with pytest.warns(RuntimeWarning, match=reason):
        assert measures.find("accuracy.pgd").label == "Robust accuracy, {attack}"
    assert "mine" not in {probe.name for probe in probes.known()}
