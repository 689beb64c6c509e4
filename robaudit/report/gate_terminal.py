"""A gate's verdict on a terminal: one line a rule, the outcome last."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from robaudit.report.gate_words import WORDS, doubt_words, rule_words, suite_words
from robaudit.report.naming import marked
from robaudit.report.text import plain
from robaudit.report.words import architecture, normalization
from robaudit.schema import Decision, Outcome, Subject, Verdict

_STYLES: dict[Outcome, tuple[str, str]] = {
    "pass": ("✓", "green"),
    "fail": ("✗", "red"),
    "inconclusive": ("?", "yellow"),
}


def gate_view(verdict: Verdict) -> RenderableType:
    """The rules suite by suite, each with what was decided on what evidence; then the outcome."""
    parts: list[RenderableType] = [
        Text(marked(plain(verdict.subject.source), verdict.subject.assumed), style="bold"),
        *([Text(_subject(verdict.subject), style="dim")] if verdict.subject.parameters else []),
    ]
    for suite in verdict.suites:
        title = suite_words(suite)
        if len(verdict.suites) > 1:
            title = f"{plain(suite.name)}: {title}"
        parts.append(Text(title, style="dim"))
        parts += _lines(rule for rule in verdict.decisions if rule.suite == suite.name)
    parts += [Text(f"Warning: {plain(warning)}", style="yellow") for warning in verdict.warnings]
    passed = sum(rule.outcome == "pass" for rule in verdict.decisions)
    symbol, style = _STYLES[verdict.outcome]
    parts.append(
        Text(
            f"{symbol} Gate {WORDS[verdict.outcome]}: "
            f"{passed} of {len(verdict.decisions)} rules passed.",
            style=f"bold {style}",
        )
    )
    return Group(*parts)


def _lines(rules: Iterable[Decision]) -> Iterable[RenderableType]:
    for rule in rules:
        symbol, style = _STYLES[rule.outcome]
        warns = rule.severity == "warning" and rule.outcome != "pass"
        warning = ", which only warns" if warns else ""
        line = Text.assemble(
            (f"{symbol} ", style),
            f"{rule_words(rule)}: ",
            (rule.outcome.upper(), style),
            f"{warning}. {plain(rule.sentence)}",
        )
        if rule.reason:
            line.append(f" Reason: {plain(rule.reason)}.")
        if said := doubt_words(rule):
            line.append(f" Doubts: {said}.")
        yield Padding(line, (0, 0, 0, 2))


def _subject(subject: Subject) -> str:
    return f"{architecture(subject)}; normalisation {normalization(subject)}"
