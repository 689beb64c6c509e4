"""A comparison of two audits as a page."""

from __future__ import annotations

from dataclasses import replace

from robaudit.report.compare import Comparison
from robaudit.report.compare_tables import changed_lines, difference_table, note_lines, provenance
from robaudit.report.facts import threat_text
from robaudit.report.html.page import page
from robaudit.report.pictures.drawing import inline
from robaudit.report.pictures.intervals import Whisker, intervals


def compare_html(comparison: Comparison) -> str:
    """Every difference with its interval, the examples that changed, and the provenance of both."""
    first, names = comparison.first, comparison.names
    table = difference_table(comparison)
    drawn = [
        Whisker(row[0].text, one.value, one.interval.low, one.interval.high).against(0)
        for row, one in zip(table.rows, comparison.differences, strict=True)
        if one.value is not None and one.interval is not None
    ]
    figure = intervals(drawn, "difference (rows differ in scale)", limit=0)
    return page(
        "compare.html.j2",
        title=f"{names[0]} and {names[1]}",
        data=f"{first.data.name} {first.data.split}, the same {first.data.n:,} examples",
        threat=threat_text(first.threat),
        differences=replace(table, title="Differences", caption=""),
        picture=inline(figure, "differences", "Differences and their intervals beside zero"),
        changed=changed_lines(comparison),
        notes=note_lines(comparison),
        provenance=[
            (name, [(row[0], row[side]) for row in provenance(comparison)])
            for side, name in enumerate(names, start=1)
        ],
    )
