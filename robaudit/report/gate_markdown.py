"""A gate's verdicts as markdown, for a job's summary page and for one comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from robaudit.report.gate_words import (
    ORDER,
    WORDS,
    doubt_words,
    examples_words,
    found_words,
    names,
    rule_words,
    suite_words,
    worst,
    worst_first,
)
from robaudit.report.text import markdown, plain
from robaudit.report.words import architecture, normalization
from robaudit.schema import Decision, Verdict

MARKER: Final = "<!-- robaudit-gate -->"
_MOST_BYTES: Final = 60_000  # a comment holds 65536 characters, a summary 1 MiB
_ROOM_FOR_NOTE: Final = 200
_HEADINGS = "| Result | Rule | Found | Examples | What was decided |\n|---|---|---:|---:|---|"


def gate_markdown(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as GitHub-flavoured markdown of at most 60 000 bytes.

    It begins with :data:`MARKER`, by which a bot finds its earlier comment and replaces it. Rules
    that did not pass come first; a last line counts the rules for which there was no room.
    """
    outcome = worst(verdict.outcome for verdict in verdicts)
    opening = [MARKER, f"## robaudit gate: {WORDS[outcome]}", ""]
    lines: list[str] = []
    rows = 0
    room = _MOST_BYTES - _size(opening) - _ROOM_FOR_NOTE
    pairs = sorted(
        zip(verdicts, names(verdicts), strict=True), key=lambda pair: ORDER[pair[0].outcome]
    )
    for verdict, name in pairs:
        block = _opening(verdict, name)
        decisions = worst_first(verdict.decisions)
        details = _details(verdict)
        fitting = _fitting(map(_row, decisions), room - _size(block) - _size(details))
        if decisions and not fitting:
            break
        block += [*fitting, *details]
        lines += block
        room -= _size(block)
        rows += len(fitting)
    missing = sum(len(verdict.decisions) for verdict in verdicts) - rows
    if missing:
        lines.append(f"**Truncated:** {missing:,} more rules are not shown here.")
    return "\n".join(opening + lines).rstrip() + "\n"


def _fitting(rows: Iterable[str], room: int) -> list[str]:
    kept: list[str] = []
    for row in rows:
        room -= _size([row])
        if room < 0:
            break
        kept.append(row)
    return kept


def _size(lines: Iterable[str]) -> int:
    return sum(len(line.encode()) + 1 for line in lines)


def _opening(verdict: Verdict, name: str) -> list[str]:
    passed = sum(decision.outcome == "pass" for decision in verdict.decisions)
    count = f"{passed} of {len(verdict.decisions)} rules passed"
    return [f"### {_prose(name)}: {WORDS[verdict.outcome]} ({count})", "", _HEADINGS]


def _row(decision: Decision) -> str:
    word = decision.outcome if decision.outcome == "pass" else f"**{decision.outcome}**"
    if decision.severity == "warning":
        word += " (warning)"
    reason = decision.reason or ""
    said = decision.sentence + (f" ({reason})" if reason not in decision.sentence else "")
    if doubts := doubt_words(decision):
        said += f" (doubts: {doubts})"
    rule = f"{_code(rule_words(decision))} {_prose(decision.suite)}"
    cells = (word, rule, found_words(decision), examples_words(decision), _prose(said))
    return f"| {' | '.join(cells)} |"


def _details(verdict: Verdict) -> list[str]:
    subject = verdict.subject
    facts = [
        (
            "checkpoint",
            _code(subject.source) + f", sha256 {_prose((subject.sha256 or 'none')[:12])}",
        ),
        ("architecture", _prose(architecture(subject))),
        ("normalisation", _prose(normalization(subject))),
        *((f"suite {_prose(suite.name)}", _prose(suite_words(suite))) for suite in verdict.suites),
        ("policy", _code(verdict.policy) + f", sha256 {_prose(verdict.policy_sha256[:12])}"),
        ("robaudit", _prose(verdict.robaudit)),
        *(("warning", _prose(warning)) for warning in verdict.warnings),
    ]
    listed = [f"- {key}: {value}" for key, value in facts]
    return ["", "<details><summary>What was checked</summary>", "", *listed, "", "</details>", ""]


def _code(text: str) -> str:
    bare = plain(text).replace("`", "'").replace("|", "\\|")
    return f"`{bare}`"


def _prose(text: str) -> str:
    """Escaped, and broken up so that GitHub makes no mention of a user and no link of it."""
    safe = markdown(text)
    for sign, broken in (("@", "@<!-- -->"), ("://", ":<!-- -->//"), ("www.", "www<!-- -->.")):
        safe = safe.replace(sign, broken)
    return safe
