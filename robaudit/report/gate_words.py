"""A gate's rules and their outcomes in words, for the formats that CI systems read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from robaudit.report.naming import names_of
from robaudit.report.numbers import shown
from robaudit.report.text import plain
from robaudit.schema import Decision, Interval, Measurement, Outcome, Suite, Verdict
from robaudit.types import radius

_SIGNS = {"min": ">=", "max": "<=", "max_drop": "drop <="}
ORDER: Final[dict[Outcome, int]] = {"fail": 0, "inconclusive": 1, "pass": 2}
"""Outcomes from the worst."""
WORDS: Final[dict[Outcome, str]] = {
    "pass": "passed",
    "fail": "failed",
    "inconclusive": "inconclusive",
}


def rule_words(decision: Decision) -> str:
    """The rule as the policy states it, in the metric's own unit.

    >>> rule_words(
    ...     Decision(metric="accuracy.pgd", suite="digits", rule="max_drop", threshold=0.02,
    ...              outcome="pass", sentence="", alpha=0.05)
    ... )
    'accuracy.pgd drop <= 0.02'
    """
    return f"{plain(decision.metric)} {_SIGNS[decision.rule]} {decision.threshold:.6g}"


def found_words(decision: Decision) -> str:
    """The estimate and its interval in the metric's own unit, or ``""`` where there is none.

    Of a ``max_drop`` it is the drop: what the baseline had, less what was found.
    """
    size, interval = judged(decision)
    if size is None:
        return ""
    said = str(shown(Measurement(name=decision.metric, value=size, interval=interval)))
    if decision.rule != "max_drop" or decision.value is None or decision.baseline is None:
        return said
    return f"{said}, from {decision.baseline:.4g} to {decision.value:.4g}"


def judged(decision: Decision) -> tuple[float | None, Interval | None]:
    """The number that the threshold is for, and its interval: for a ``max_drop`` the drop."""
    value, interval, before = decision.value, decision.interval, decision.baseline
    if decision.rule != "max_drop" or value is None or before is None:
        return value, interval
    if interval is not None:
        ends = {"low": before - interval.high, "high": before - interval.low}
        interval = interval.model_copy(update=ends)
    return before - value, interval


def worst_first(decisions: Iterable[Decision]) -> list[Decision]:
    """Failed rules, then inconclusive, then passed ones; those that only warn last of each."""
    return sorted(decisions, key=lambda one: (ORDER[one.outcome], one.severity == "warning"))


def examples_words(decision: Decision) -> str:
    """How many examples were evaluated, of how many: ``70 of 600``."""
    if decision.examples is None:
        return ""
    of = "" if decision.population is None else f" of {decision.population:,}"
    return f"{decision.examples:,}{of}"


def doubt_words(decision: Decision) -> str:
    """The doubts about a decision, without those that its reason already states."""
    return "; ".join(plain(one) for one in decision.doubts if one not in (decision.reason or ""))


def why(decision: Decision) -> str:
    """The reason for an inconclusive decision and the doubts about it, as further sentences."""
    reason = f" Reason: {plain(decision.reason)}." if decision.reason else ""
    doubts = doubt_words(decision)
    return f"{reason} Doubts: {doubts}." if doubts else reason


def suite_words(suite: Suite) -> str:
    """The examples and the threat model that the suite's rules are about."""
    data, threat = suite.data, suite.threat
    return (
        f"{plain(data.name)} {plain(data.split)}, {data.n:,} examples, "
        f"{threat.norm} {radius(threat.eps)}, sha256 {plain(data.sha256)[:12]}"
    )


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """``fail`` if there is one, else ``inconclusive`` if there is one, else ``pass``."""
    found = set(outcomes)
    return "fail" if "fail" in found else "inconclusive" if "inconclusive" in found else "pass"


def names(verdicts: Sequence[Verdict]) -> list[str]:
    """A short name for each verdict's checkpoint, no two alike."""
    return names_of([verdict.subject for verdict in verdicts])
