"""A gate's verdicts as JUnit XML of the xunit2 kind, which Jenkins, GitLab and GitHub Actions show.

A suite is a checkpoint and a case is a rule. A rule of severity ``warning`` that did not pass is a
skipped case: servers list those with their message, and do not fail the build for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from robaudit.report.gate_words import (
    doubt_words,
    examples_words,
    found_words,
    names,
    rule_words,
    suite_words,
)
from robaudit.report.text import plain
from robaudit.schema import Decision, Verdict

_TAGS = {"fail": "failure", "inconclusive": "error"}
# XML 1.0 does not allow these two, which Unicode does not count as control characters.
_NO_XML = str.maketrans({"\ufffe": " ", "\uffff": " "})


def to_junit(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as one XML document that ends in a newline.

    A failed rule is a ``failure``, an inconclusive one an ``error``.
    """
    suites = [
        _suite(verdict, name) for verdict, name in zip(verdicts, names(verdicts), strict=True)
    ]
    root = ElementTree.Element("testsuites", name="robaudit gate")
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.extend(suites)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _suite(verdict: Verdict, name: str) -> ElementTree.Element:
    cases = [_case(decision, verdict, name) for decision in verdict.decisions]
    suite = ElementTree.Element(
        "testsuite",
        name=_xml(verdict.subject.source),
        tests=str(len(cases)),
        failures=_count(cases, "failure"),
        errors=_count(cases, "error"),
        skipped=_count(cases, "skipped"),
        time=f"{verdict.provenance.seconds:.3f}",
        timestamp=_xml(verdict.provenance.started),
    )
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in _facts(verdict):
        ElementTree.SubElement(properties, "property", name=_xml(key), value=_xml(value))
    suite.extend(cases)
    if verdict.warnings:
        warnings = ElementTree.SubElement(suite, "system-err")
        warnings.text = "\n".join(_xml(warning) for warning in verdict.warnings)
    return suite


def _facts(verdict: Verdict) -> list[tuple[str, object]]:
    subject = verdict.subject
    return [
        ("robaudit", verdict.robaudit),
        ("policy", verdict.policy),
        ("policy sha256", verdict.policy_sha256),
        ("checkpoint sha256", subject.sha256 or "none"),
        ("architecture", subject.architecture),
        ("architecture known", subject.architecture_known or "unknown"),
        ("normalization", subject.normalization),
        ("normalization known", subject.normalization_known or "unknown"),
        *((f"suite {suite.name}", suite_words(suite)) for suite in verdict.suites),
        ("seed", verdict.provenance.seed),
    ]


def _case(decision: Decision, verdict: Verdict, name: str) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        classname=_xml(f"{name} {decision.suite}"),
        name=_xml(rule_words(decision)),
        time=f"{decision.seconds or 0:.3f}",
    )
    sentence = _xml(decision.sentence)
    if decision.outcome == "pass":
        doubts = doubt_words(decision)
        said = f"{sentence}\ndoubts: {_xml(doubts)}" if doubts else sentence
        ElementTree.SubElement(case, "system-out").text = said
    elif decision.severity == "warning":
        why = f" ({_xml(decision.reason)})" if decision.reason else ""
        ElementTree.SubElement(case, "skipped", message=f"warning: {sentence}{why}")
    else:
        found = ElementTree.SubElement(
            case, _TAGS[decision.outcome], type=decision.outcome, message=sentence
        )
        found.text = "\n".join(_lines(decision, verdict))
    return case


def _lines(decision: Decision, verdict: Verdict) -> list[str]:
    """The details of a case, which its message does not hold."""
    line = "" if decision.line is None else f", line {decision.line}"
    known = (
        ("found", found_words(decision)),
        ("examples", examples_words(decision)),
        ("baseline", "" if decision.baseline is None else f"{decision.baseline:.4g}"),
        ("reason", decision.reason or ""),
        ("doubts", doubt_words(decision)),
        ("rule", f"{verdict.policy}{line}"),
    )
    return [_xml(f"{key}: {value}") for key, value in known if value]


def _count(cases: Sequence[ElementTree.Element], tag: str) -> str:
    return str(sum(case.find(tag) is not None for case in cases))


def _xml(text: object) -> str:
    return plain(text).translate(_NO_XML)
