"""A gate's verdict as tables: the rules of each suite, and the outcome."""

from __future__ import annotations

from typing import Final

from robaudit.report.gate_words import WORDS, rule_words, suite_words, why
from robaudit.report.naming import marked
from robaudit.report.table import Cell, Table, Tone, bullets, names, text
from robaudit.report.words import architecture, normalization
from robaudit.schema import Decision, Outcome, Verdict

SIGNS: Final[dict[Outcome, tuple[str, Tone]]] = {
    "pass": ("✓", "good"),
    "fail": ("✗", "bad"),
    "inconclusive": ("?", "warning"),
}


def gate_tables(verdict: Verdict) -> list[Table]:
    """The checkpoint, a table of rules for each suite with the evidence in words, the outcome."""
    subject = verdict.subject
    about = f"{architecture(subject)}; normalisation {normalization(subject)}"
    passed = sum(rule.outcome == "pass" for rule in verdict.decisions)
    sign, tone = SIGNS[verdict.outcome]
    outcome = f"Gate {WORDS[verdict.outcome]}: {passed} of {len(verdict.decisions)} rules passed."
    return [
        Table(
            title=marked(subject.source, subject.assumed),
            caption=about if subject.parameters else "",
        ),
        *(
            Table(
                [names(), text()],
                [_row(rule) for rule in verdict.decisions if rule.suite == suite.name],
                caption=f"{suite.name}: {suite_words(suite)}"
                if len(verdict.suites) > 1
                else suite_words(suite),
            )
            for suite in verdict.suites
        ),
        *bullets("Warnings", verdict.warnings),
        Table([names(), text()], [[Cell(sign, tone=tone), Cell(outcome, tone=tone)]]),
    ]


def _row(rule: Decision) -> list[Cell]:
    sign, tone = SIGNS[rule.outcome]
    warns = rule.severity == "warning" and rule.outcome != "pass"
    outcome = rule.outcome.upper() + (", which only warns" if warns else "")
    said = f"{rule_words(rule)}: {outcome}. {rule.sentence}{why(rule)}"
    return [Cell(sign, tone=tone), Cell(said)]
