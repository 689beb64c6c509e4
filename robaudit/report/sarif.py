"""A gate's verdicts as SARIF 2.1.0: what code-scanning pages show at the policy's lines.

Rules that passed are left out, since code-scanning pages list every result as an open alert.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from robaudit.report.gate_words import names, rule_words, why
from robaudit.report.text import plain
from robaudit.schema import IN_DOUBT, Decision, Verdict

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_WHAT = {
    "min": "The metric must be at least the policy's threshold.",
    "max": "The metric must be at most the policy's threshold.",
    "max_drop": "The metric must not fall below the baseline's by more than the policy allows.",
}


def to_sarif(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as one run, as JSON text that ends in a newline.

    A failed rule is a result of kind ``fail`` at its severity's level; an inconclusive one is of
    kind ``open``, which has no level. Each is located at the rule's line in the policy, and
    logically in the checkpoint.
    """
    decisions = [decision for verdict in verdicts for decision in verdict.decisions]
    rules = {_rule_id(decision): decision for decision in decisions}
    order = {identity: place for place, identity in enumerate(rules)}
    results = [
        _result(decision, verdict, name, order[_rule_id(decision)])
        for verdict, name in zip(verdicts, names(verdicts), strict=True)
        for decision in verdict.decisions
        if decision.outcome != "pass"
    ]
    version = {"version": verdicts[0].robaudit} if verdicts else {}
    run = {
        "tool": {
            "driver": {
                "name": "robaudit",
                **version,
                "rules": [_rule(identity, one) for identity, one in rules.items()],
            }
        },
        "invocations": [
            {
                "executionSuccessful": all(
                    decision.reason is None or decision.reason.startswith(IN_DOUBT)
                    for decision in decisions
                ),
                "toolExecutionNotifications": [
                    {"level": "warning", "message": {"text": _message(warning)}}
                    for verdict in verdicts
                    for warning in verdict.warnings
                ],
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, allow_nan=False) + "\n"


def _rule_id(decision: Decision) -> str:
    return f"{plain(decision.metric)}/{decision.rule}"


def _rule(identity: str, decision: Decision) -> dict[str, Any]:
    what = f"{plain(decision.metric)}: {_WHAT[decision.rule]}"
    return {
        "id": identity,
        "shortDescription": {"text": what},
        "fullDescription": {
            "text": f"{what} It is open where the examples looked at do not decide it."
        },
        "help": {"text": "robaudit compare and robaudit report show the numbers behind a rule."},
        "properties": {"tags": ["adversarial-robustness"]},
    }


def _result(decision: Decision, verdict: Verdict, name: str, place: int) -> dict[str, Any]:
    failed = decision.outcome == "fail"
    subject = verdict.subject
    identity = (subject.source, decision.suite, decision.metric, decision.rule)
    facts = {
        "suite": plain(decision.suite),
        "rule": rule_words(decision),
        "value": decision.value,
        "low": decision.interval.low if decision.interval else None,
        "high": decision.interval.high if decision.interval else None,
        "examples": decision.examples,
        "population": decision.population,
        "checkpointSha256": None if subject.sha256 is None else plain(subject.sha256),
    }
    return {
        "ruleId": _rule_id(decision),
        "ruleIndex": place,
        "kind": "fail" if failed else "open",
        "level": decision.severity if failed else "none",
        "message": {"text": _message(f"{name}: {decision.sentence}{why(decision)}")},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(verdict.policy)},
                    "region": {"startLine": decision.line or 1},
                },
                "logicalLocations": [
                    {"name": name, "fullyQualifiedName": plain(subject.source), "kind": "resource"}
                ],
            }
        ],
        # Of the rule, not of the weights: commits that fail the same rule share one alert.
        "partialFingerprints": {
            "robauditRule/v1": hashlib.sha256(
                "\0".join(identity).encode("utf-8", "backslashreplace")
            ).hexdigest()
        },
        "properties": {key: value for key, value in facts.items() if value is not None},
    }


def _uri(path: str) -> str:
    """The path as the user gave it, as a URI: a relative one stays relative."""
    given = PurePath(path)
    return (
        given.as_uri() if given.is_absolute() else quote(given.as_posix(), errors="surrogateescape")
    )


def _message(text: str) -> str:
    """Text in which SARIF's own syntax is escaped: placeholders in braces, links in brackets."""
    return plain(text).replace("{", "{{").replace("}", "}}").replace("](", "] (")
