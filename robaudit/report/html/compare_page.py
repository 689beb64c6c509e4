"""A comparison of two audits as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup

from robaudit.measures import find
from robaudit.report.compare import Comparison, Difference
from robaudit.report.compare_tables import changed_lines, difference_table, note_lines, provenance
from robaudit.report.facts import threat_text
from robaudit.report.html.page import page
from robaudit.report.pictures.drawing import inline, short
from robaudit.report.pictures.intervals import Whisker, intervals
from robaudit.report.pictures.palette import GREEN, SOFT, VERMILION

_COLOURS = {"better": GREEN, "worse": VERMILION, None: SOFT}


def compare_html(comparison: Comparison) -> str:
    """Every difference with its interval, the examples that changed, and the provenance of both."""
    first, names = comparison.first, comparison.names
    table = difference_table(comparison, judged=True)
    labels = [row[0].text for row in table.rows]
    return page(
        "compare.html.j2",
        title=f"{names[0]} and {names[1]}",
        data=f"{first.data.name} {first.data.split}, the same {first.data.n:,} examples",
        threat=threat_text(first.threat),
        differences=replace(table, title="Differences", caption=""),
        pictures=_pictures(comparison, labels),
        changed=changed_lines(comparison),
        notes=note_lines(comparison),
        provenance=[
            (name, [(row[0], row[side]) for row in provenance(comparison)])
            for side, name in enumerate(names, start=1)
        ],
    )


def _pictures(comparison: Comparison, labels: Sequence[str]) -> list[Markup]:
    """The differences beside zero, one picture and one scale for each kind of number."""
    kinds: dict[str, list[Whisker]] = {}
    for one, name in zip(comparison.differences, labels, strict=True):
        if one.value is None or one.interval is None or one.first is None:
            continue
        kind, factor = _scale(one, comparison.names[0])
        value, low, high = (factor * x for x in (one.value, one.interval.low, one.interval.high))
        said = f"{name}{f': {one.result}' if one.result else ''}"
        kinds.setdefault(kind, []).append(
            Whisker(said, value, low, high, colour=_COLOURS[one.result])
        )
    return [
        inline(intervals(rows, f"difference, {kind}", zero=True), f"differences-{at}", kind)
        for at, (kind, rows) in enumerate(kinds.items())
    ]


def _scale(one: Difference, name: str) -> tuple[str, float]:
    """The axis that a difference is drawn on, and what it is multiplied by."""
    assert one.first is not None
    assert one.first.value is not None
    if one.unit == "fraction":
        return "points", 100
    if one.unit == "nats" and find(one.name).section != "Curvature":
        return "nats", 1
    if one.first.value == 0:
        return f"{one.unit or 'no unit'}, from 0", 1
    return f"% of {short(name, 24)}'s", 100 / abs(one.first.value)
