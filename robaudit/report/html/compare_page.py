"""A comparison of two audits as a page."""

from __future__ import annotations

from robaudit.report.compare import Comparison, Difference
from robaudit.report.compare_tables import changed_lines, difference_table, note_lines, provenance
from robaudit.report.facts import threat_text
from robaudit.report.html.charts import threshold
from robaudit.report.html.page import page
from robaudit.report.html.table import Cell, table


def compare_html(comparison: Comparison) -> str:
    """Every difference beside nought, the examples that changed, and the provenance of both."""
    first, names = comparison.first, comparison.names
    found = difference_table(comparison)
    differences: list[tuple[str | Cell, ...]] = []
    for row, one in zip(found.rows, comparison.differences, strict=True):
        texts = [f"{cell.text} {cell.spread}".strip() for cell in row]
        differences.append((*texts[:4], _drawn(one), *texts[4:]))
    headings = [column.heading for column in found.columns]
    return page(
        "compare.html.j2",
        title=f"{names[0]} and {names[1]}",
        data=f"{first.data.name} {first.data.split}, the same {first.data.n:,} examples",
        threat=threat_text(first.threat),
        differences=table(
            "Differences, each measurement on a scale of its own",
            (*headings[:4], "Beside nought", *headings[4:]),
            differences,
            " rrrwrr",
        ),
        changed=changed_lines(comparison),
        notes=note_lines(comparison),
        provenance=[
            (name, [(row[0], row[side]) for row in provenance(comparison)])
            for side, name in enumerate(names, start=1)
        ],
    )  # fmt: skip


def _drawn(one: Difference) -> Cell:
    if one.value is None or one.interval is None:
        return Cell("")
    return Cell(threshold(one.value, one.interval.low, one.interval.high, 0.0, False))
