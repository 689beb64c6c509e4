"""Why several reports cannot be compared, and what they lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from robaudit.report.facts import short_threat
from robaudit.report.text import plain
from robaudit.report.words import not_measured
from robaudit.schema import Report


def differing(reports: Sequence[Report]) -> str | None:
    """The beginning of a sentence that says in what the reports differ; ``None`` if comparable.

    Numbers on different examples or for different threat models cannot be ranked.
    """
    kinds: dict[str, Callable[[Report], str]] = {
        "threat models": lambda r: short_threat(r.threat),
        "data": lambda r: f"{plain(r.data.name)} {plain(r.data.split)}, n = {r.data.n}",
        "examples": lambda r: r.data.sha256,
    }
    for what, key in kinds.items():
        values = list(dict.fromkeys(key(report) for report in reports))
        if len(values) > 1:
            listed = "" if what == "examples" else f" ({'; '.join(values)})"
            return f"The reports' {what} differ{listed}"
    return None


def architectures_differ(reports: Sequence[Report]) -> bool:
    """Whether the reports are of different architectures."""
    return len({report.subject.architecture for report in reports}) > 1


def settings_differ(reports: Sequence[Report], name: str) -> bool:
    """Whether a measurement was made with different settings in the reports that have it."""
    found = [m.settings for report in reports if (m := report.get(name)) and m.status == "ok"]
    return any(settings != found[0] for settings in found)


def gone(names: Sequence[str], reports: Sequence[Report]) -> list[str]:
    """What was not measured and why: each reason once, with the models that it applies to."""
    models: dict[str, list[str]] = {}
    for name, report in zip(names, reports, strict=True):
        for line in not_measured(report):
            models.setdefault(line, []).append(name)
    return [
        f"{'All models' if len(which) == len(names) > 1 else ', '.join(which)}: {line}"
        for line, which in models.items()
    ]
