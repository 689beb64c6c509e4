"""A gate's verdict as a page."""

from __future__ import annotations

from robaudit.report.facts import command, provenance_rows, subject_rows
from robaudit.report.gate_tables import SIGNS
from robaudit.report.gate_words import (
    WORDS,
    examples_words,
    found_words,
    judged,
    rule_words,
    suite_words,
    why,
    worst_first,
)
from robaudit.report.html.page import page
from robaudit.report.naming import name_of
from robaudit.report.pictures.drawing import inline
from robaudit.report.pictures.intervals import Whisker, intervals
from robaudit.report.pictures.palette import BLUE, SOFT, VERMILION
from robaudit.report.table import Cell, Column, Table, names, text
from robaudit.schema import Decision, Outcome, Verdict

_COLOURS: dict[Outcome, str] = {"pass": BLUE, "fail": VERMILION, "inconclusive": SOFT}


def verdict_html(verdict: Verdict) -> str:
    """The verdict with every rule and its evidence, as one self-contained HTML document."""
    decisions = worst_first(verdict.decisions)
    rows = [
        [
            Cell(rule_words(one)),
            Cell(one.suite),
            outcome_cell(one.outcome),
            Cell("" if one.severity == "error" else one.severity),
            Cell(found_words(one)),
            Cell(examples_words(one)),
        ]
        for one in decisions
    ]
    columns = [names("Rule"), text("Suite"), text("Outcome"), text("Severity")]
    drawn = [row for one in decisions if (row := _row(one)) is not None]
    label = "distance from the threshold (rows differ in scale)"
    return page(
        "verdict.html.j2",
        title=name_of(verdict.subject),
        verdict=verdict,
        outcome=WORDS[verdict.outcome],
        ordered=decisions,
        words=WORDS,
        rule=rule_words,
        why=why,
        decisions=Table(
            [*columns, Column("Found"), Column("Examples")], rows, "Rules and their outcomes"
        ),
        picture=inline(
            intervals(drawn, label, limit=0), "against", "Values and intervals beside the threshold"
        ),
        suites=[(suite.name, suite_words(suite)) for suite in verdict.suites],
        header=subject_rows(verdict.subject),
        provenance=provenance_rows(verdict.provenance, verdict.robaudit)[1:],
        command=command(verdict.provenance),
    )


def outcome_cell(outcome: Outcome) -> Cell:
    """The outcome as a sign, a word and a colour."""
    sign, tone = SIGNS[outcome]
    return Cell(f"{sign} {WORDS[outcome]}", tone=tone)


def _row(one: Decision) -> Whisker | None:
    """``None`` without an interval, and for a drop from an unknown baseline."""
    value, interval = judged(one)
    if value is None or interval is None or (one.rule == "max_drop" and one.baseline is None):
        return None
    colour = _COLOURS[one.outcome]
    row = Whisker(rule_words(one), value, interval.low, interval.high, colour=colour)
    return row.against(one.threshold)
