"""A doubted number shows its doubt in every format, a rule in doubt its reason."""

import csv
import io
import json

import pytest
from support.gates import decision, verdict

from robaudit.gate.decisions import doubting
from robaudit.report import render
from robaudit.report.compare import compare
from robaudit.report.compare_outcomes import Audited
from robaudit.report.compare_tables import (
    compare_data,
    compare_json,
    compare_markdown,
    compare_tables,
)
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.formats.terminal import terminal_text
from robaudit.report.gate_markdown import gate_markdown
from robaudit.report.gate_tables import gate_tables
from robaudit.report.html import index_html, to_html, verdict_html
from robaudit.report.html.compare_page import compare_html
from robaudit.report.junit import to_junit
from robaudit.report.sarif import to_sarif

DOUBT = "gradients lead nowhere"


@pytest.fixture
def doubted(report):
    measurements = [
        m.model_copy(update={"doubts": [DOUBT]}) if m.name == "accuracy.pgd" else m
        for m in report.measurements
    ]
    return report.model_copy(update={"measurements": measurements})


@pytest.mark.parametrize(
    "of", [lambda r: render([r], "table"), lambda r: render([r], "md"), to_html]
)
def test_the_value_is_marked_and_the_doubt_is_named_with_what_it_is_about(of, report, doubted):
    plain, marked = of(report), of(doubted)
    assert DOUBT not in plain
    assert "53.4?" not in plain
    assert "53.4?" in marked
    assert "47.3?" not in marked
    assert f"Robust accuracy, PGD-20 x10: {DOUBT}" in " ".join(marked.split())


def test_tables_and_json_hold_it(doubted):
    rows = list(csv.DictReader(io.StringIO(render([doubted], "csv"))))
    assert [r["name"] for r in rows if r["doubts"] == DOUBT] == ["accuracy.pgd"] * 2
    assert {r["doubts"] for r in rows} == {DOUBT, ""}
    found = json.loads(render([doubted], "json"))["measurements"]
    assert [m["name"] for m in found if m["doubts"]] == ["accuracy.pgd"] * 2


def test_parquet_holds_it_as_a_list(doubted):
    parquet = pytest.importorskip("pyarrow.parquet")
    from robaudit.report.parquet import to_parquet

    table = parquet.read_table(io.BytesIO(to_parquet([doubted])))
    assert table.column("doubts").to_pylist() == [m.doubts for m in doubted.measurements]


def test_several_reports_and_comparisons_mark_it(report, doubted, rename):
    other = rename(report, "b.pt")
    for text in (render([doubted, other], "table"), render([doubted, other], "md")):
        assert "53.4?" in text
    assert "53.4?" in index_html([doubted, other])
    found = compare(Audited(doubted, {}), Audited(other, {}))
    shown = terminal_text(*compare_tables(found))
    for text in (compare_markdown(found), shown, compare_html(found)):
        assert "53.4? %" in text
        assert DOUBT in text
    whole = json.loads(compare_json(found))["differences"]
    assert {r["name"] for r in whole if r["first_doubts"]} == {"accuracy.pgd"}
    assert not any(r["second_doubts"] for r in whole)
    rows = csv.DictReader(io.StringIO(csv_text(compare_data(found))))
    assert {r["name"] for r in rows if r["first_doubts"] == DOUBT} == {"accuracy.pgd"}


FORMATS = [
    lambda v: " ".join(terminal_text(*gate_tables(v)).split()),
    lambda v: gate_markdown([v]),
    lambda v: to_junit([v]),
    lambda v: to_sarif([v]),
    verdict_html,
]


@pytest.mark.parametrize("of", FORMATS)
@pytest.mark.parametrize("outcome", ["pass", "inconclusive"])
def test_a_rule_in_doubt_says_so_in_every_format(of, outcome):
    one = doubting(decision(outcome, reason=None if outcome == "pass" else "x"), [DOUBT], False)
    assert one.outcome == "inconclusive"
    assert DOUBT in of(verdict(decisions=[one]))


@pytest.mark.parametrize("of", [FORMATS[0], FORMATS[1], FORMATS[2], FORMATS[4]])
def test_a_doubt_that_the_policy_allows_is_said_all_the_same(of):
    one = doubting(decision("pass"), [DOUBT], True)
    assert one.outcome == "pass"
    assert DOUBT in of(verdict(decisions=[one]))


@pytest.mark.parametrize(
    ("metric", "rule", "outcome", "expected"),
    [
        ("accuracy.pgd", "min", "pass", "inconclusive"),
        ("accuracy.pgd", "min", "fail", "fail"),
        ("accuracy.pgd", "max", "fail", "inconclusive"),
        ("accuracy.pgd", "max", "pass", "inconclusive"),
        ("accuracy.pgd", "max_drop", "fail", "fail"),
        ("loss.robust", "max", "fail", "fail"),
        ("loss.robust", "max", "pass", "inconclusive"),
        ("loss.robust", "min", "fail", "inconclusive"),
        ("distance.median", "min", "fail", "fail"),
        ("wci", "max", "fail", "inconclusive"),
        ("gap.loss", "max", "fail", "inconclusive"),
    ],
)
def test_doubts_overstate_so_that_only_a_floor_that_is_not_reached_still_fails(
    metric, rule, outcome, expected
):
    one = decision(outcome, metric=metric, rule=rule)
    assert doubting(one, [DOUBT], False).outcome == expected
    assert doubting(one, [DOUBT], True).outcome == outcome
    assert doubting(one, [], False) == one


def test_a_doubted_baseline_makes_no_checkpoint_fail():
    fell = decision("fail", rule="max_drop", baseline=0.9)
    found = doubting(fell, [], False, baseline=[DOUBT])
    assert (found.outcome, f"of the baseline: {DOUBT}" in (found.reason or "")) == (
        "inconclusive",
        True,
    )
    stood = decision("pass", rule="max_drop", baseline=0.9)
    assert doubting(stood, [], False, baseline=[DOUBT]).outcome == "pass"
