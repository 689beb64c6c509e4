"""A model card: a report as the ``README.md`` of a model on the Hugging Face Hub.

The metadata block at the top has a ``model-index``, which the Hub shows beside the model.
Source of its fields: the Hub's model card specification.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from robaudit.errors import UsageError
from robaudit.report.facts import short_threat
from robaudit.report.report_tables import to_markdown
from robaudit.report.text import model_name, plain
from robaudit.report.words import group, label, ordered
from robaudit.schema import Measurement, Report

_LEFT_OUT = """
Not in the metadata, because something casts doubt on them (see the doubts below): {names}.
"""


def model_card(reports: Sequence[Report]) -> str:
    """The card of one model, from its reports: at several radii or norms, on several data sets.

    The metadata has every accuracy with its interval, in per cent; an accuracy with a doubt is left
    out of it, and the text says so. The text is that of ``report.md``.

    Raises:
        UsageError: the reports are of several models.
    """
    subject = reports[0].subject
    if len({(one.subject.sha256, one.subject.source) for one in reports}) > 1:
        raise UsageError(
            "a model card is of one model, but the reports are of several",
            "Give the reports of one checkpoint.",
        )
    name = model_name(subject.source)
    metadata = {
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "adversarial-robustness", "robaudit"],
        "metrics": ["accuracy"],
        "model-index": [{"name": name, "results": [_result(one) for one in reports]}],
    }
    doubted = dict.fromkeys(label(m) for one in reports for m in _accuracies(one) if m.doubts)
    told = _LEFT_OUT.format(names=", ".join(doubted)) if doubted else ""
    body = "\n".join(to_markdown(one) for one in reports)
    return "\n".join(["---", *_yaml(metadata, 0), "---", told, body])


def _accuracies(report: Report) -> list[Measurement]:
    """Those that were measured on the audited split."""
    audited = (m for m in ordered(report) if m.split == report.data.split and m.value is not None)
    return [m for m in audited if group(m) == "Accuracy"]


def _result(report: Report) -> dict[str, Any]:
    data = report.data
    return {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {
            "type": plain(data.name),
            "name": f"{plain(data.name)}, {data.n} examples",
            "split": plain(data.split),
        },
        "metrics": [_metric(report, m) for m in _accuracies(report) if not m.doubts],
    }


def _metric(report: Report, m: Measurement) -> dict[str, Any]:
    facts: dict[str, Any] = {"measurement": m.name, "n": m.n}
    if m.name != "accuracy.clean" and report.threat is not None:
        facts["threat"] = short_threat(report.threat)
    if m.interval is not None:
        low, high = (round(100 * end, 2) for end in (m.interval.low, m.interval.high))
        facts |= {"interval": [low, high], "level": m.interval.level, "by": m.interval.method}
    assert m.value is not None
    where = "" if m.name == "accuracy.clean" else f", {short_threat(report.threat)}"
    return {
        "type": "accuracy",
        "name": f"{label(m)}{where}",
        "value": round(100 * m.value, 2),
        "args": {key: value for key, value in facts.items() if value is not None},
    }


def _yaml(value: Any, depth: int) -> Iterator[str]:
    """Lists and dicts as YAML in block style; scalars and lists of them as JSON, which is YAML."""
    pad = "  " * depth
    if isinstance(value, dict):
        for key, one in value.items():
            if _flat(one):
                yield f"{pad}{key}: {json.dumps(one)}"
            else:
                yield f"{pad}{key}:"
                yield from _yaml(one, depth + 1)
        return
    for one in value:
        first, *others = _yaml(one, depth + 1)
        yield f"{pad}- {first.lstrip()}"
        yield from others


def _flat(value: Any) -> bool:
    if isinstance(value, list):
        return not any(isinstance(one, dict | list) for one in value)
    return not isinstance(value, dict)
