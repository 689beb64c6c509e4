"""A comparison of two audits as a page."""

from __future__ import annotations

from robaudit.report.compare import Comparison, Difference
from robaudit.report.compare_words import changed, headings, notes, provenance, rows
from robaudit.report.facts import threat_text
from robaudit.report.html.charts import threshold
from robaudit.report.html.page import page
from robaudit.report.html.table import Cell, table


def compare_html(comparison: Comparison) -> str:
    """Every difference beside nought, the examples that changed, and the provenance of both."""
    first, names = comparison.first, comparison.names
    head = headings(comparison)
    differences = [
        (row.label, row.first, row.second, row.difference, _drawn(one), row.p_value, row.changed)
        for row, one in zip(rows(comparison), comparison.differences, strict=True)
    ]
    return page(
        "compare.html.j2",
        title=f"{names[0]} and {names[1]}",
        data=f"{first.data.name} {first.data.split}, the same {first.data.n:,} examples",
        threat=threat_text(first.threat),
        differences=table(
            "Differences, each measurement on a scale of its own",
            (*(head.label, head.first, head.second, head.difference, "Beside nought"),
             head.p_value, head.changed),
            differences,
            " rrrwrr",
        ),
        changed=changed(comparison),
        notes=notes(comparison),
        provenance=[
            (name, [(row[0], row[side]) for row in provenance(comparison)])
            for side, name in enumerate(names, start=1)
        ],
    )  # fmt: skip


def _drawn(one: Difference) -> Cell:
    if one.value is None or one.interval is None:
        return Cell("")
    return Cell(threshold(one.value, one.interval.low, one.interval.high, 0.0, False))
