"""What of reports belongs in a paper: tables of the numbers, with what limits them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from robaudit.report.comparison import comparison_tables
from robaudit.report.differences import differing
from robaudit.report.facts import short_threat
from robaudit.report.naming import name_of
from robaudit.report.report_tables import (
    layer_tables,
    measurement_table,
    radii_table,
    spread_tables,
)
from robaudit.report.table import Table, noted
from robaudit.report.words import doubts, not_measured
from robaudit.schema import Report


def paper_tables(reports: Sequence[Report]) -> list[Table]:
    """Of one report the measurements, radii and layers; of several the comparison or the curve.

    Files, hashes, settings and provenance are left out; doubts are not.

    Raises:
        DataError: a table in ``details`` cannot be read.
    """
    if len(reports) > 1:
        first, *others = noted(comparison_tables(reports))
        title = first.title or ("" if differing(reports) else _on(reports[0]))
        return [replace(first, title=title), *others]
    (report,) = reports
    radii = radii_table(report)
    found = [_measurements(report), *([radii] if radii else [])]
    return [*found, *layer_tables(report), *spread_tables(report)]


def _measurements(report: Report) -> Table:
    table = measurement_table(report)
    kept = [at for at, column in enumerate(table.columns) if column.heading != "Seconds"]
    notes = [
        "± is one standard error.",
        *(f"In doubt: {line}" for line in doubts(report)),
        *(f"Not measured: {line}" for line in not_measured(report)),
    ]
    title = f"{name_of(report.subject)}: {_on(report)}"
    return replace(table.only(kept), title=title, notes=notes)


def _on(report: Report) -> str:
    data = report.data
    return f"{data.name} {data.split}, n = {data.n}, {short_threat(report.threat)}"


def highest_marked(table: Table, columns: Collection[str]) -> Table:
    """The table with the highest value of each of these columns, by their headings, as the best.

    None is marked where all agree.
    """
    places = [at for at, column in enumerate(table.columns) if column.heading in columns]
    values = {at: [row[at].value for row in table.rows] for at in places}
    known = {at: {one for one in column if one is not None} for at, column in values.items()}
    highest = {at: max(found) for at, found in known.items() if len(found) > 1}
    rows = [
        [
            replace(cell, best=at in highest and cell.value == highest[at])
            for at, cell in enumerate(row)
        ]
        for row in table.rows
    ]
    return replace(table, rows=rows)
