"""A gate's verdict as a page."""

from __future__ import annotations

from markupsafe import Markup

from robaudit.report.facts import command, provenance_rows, subject_rows
from robaudit.report.gate_words import (
    WORDS,
    doubt_words,
    examples_words,
    found_words,
    rule_words,
    suite_words,
)
from robaudit.report.html.charts import threshold
from robaudit.report.html.page import page
from robaudit.report.html.table import Cell, table
from robaudit.report.naming import name_of
from robaudit.schema import Decision, Outcome, Verdict

_SIGNS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


def verdict_html(verdict: Verdict) -> str:
    """The verdict with every rule and its evidence, as one self-contained HTML document."""
    rows = [
        (
            rule_words(one),
            one.suite,
            outcome_mark(one.outcome),
            "" if one.severity == "error" else one.severity,
            found_words(one),
            _drawn(one),
            examples_words(one),
        )
        for one in verdict.decisions
    ]
    headings = (
        "Rule",
        "Suite",
        "Outcome",
        "Severity",
        "Found",
        "Against the threshold",
        "Examples",
    )
    return page(
        "verdict.html.j2",
        title=name_of(verdict.subject),
        verdict=verdict,
        outcome=WORDS[verdict.outcome],
        words=WORDS,
        rule=rule_words,
        doubts=doubt_words,
        decisions=table("Rules and their outcomes", headings, rows, "    rwr"),
        suites=[(suite.name, suite_words(suite)) for suite in verdict.suites],
        header=subject_rows(verdict.subject),
        provenance=provenance_rows(verdict.provenance, verdict.robaudit)[1:],
        command=command(verdict.provenance),
    )


def outcome_mark(outcome: Outcome) -> Markup:
    """The outcome as a sign, a word and a colour."""
    return Markup('<span class="mark-{}">{} {}</span>').format(
        outcome, _SIGNS[outcome], WORDS[outcome]
    )


def _drawn(one: Decision) -> Cell:
    """Where the interval lies; of a drop, that of the value itself is not comparable."""
    if one.value is None or one.interval is None or one.rule == "max_drop":
        return Cell("")
    low, high = one.interval.low, one.interval.high
    return Cell(threshold(one.value, low, high, one.threshold, one.metric.startswith("accuracy.")))
