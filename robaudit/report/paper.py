"""What of reports belongs in a paper: tables of the numbers, with what limits them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from robaudit.report.comparison import comparison_tables
from robaudit.report.curve import Curve, curve_tables
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
from robaudit.report.wci_curve import is_wci_curve, wci_curve
from robaudit.report.words import doubts, not_measured
from robaudit.schema import Report


def paper_tables(reports: Sequence[Report]) -> list[Table]:
    """Of one report the measurements, radii and layers; of several the comparison or the curve.

    Files, hashes, settings and provenance are left out; doubts are not.

    Raises:
        DataError: a table in ``details`` cannot be read.
    """
    if is_wci_curve(reports):
        return curve_paper(wci_curve(reports))
    if len(reports) > 1:
        return _titled(noted(comparison_tables(reports)), reports)
    (report,) = reports
    radii = radii_table(report)
    found = [_measurements(report), *([radii] if radii else [])]
    return [*found, *layer_tables(report), *spread_tables(report)]


def curve_paper(curve: Curve) -> list[Table]:
    """One row a checkpoint; the lowest robust loss on test examples is marked as the best."""
    tables = noted(curve_tables(curve))
    if differing(curve.reports):
        return tables
    ranked = [
        one.heading
        for one in curve.quantities
        if one.measurement == "loss.robust" and one.split in (None, "test")
    ]
    return _titled([best_marked(table, ranked, min) for table in tables], curve.reports)


def _titled(tables: Sequence[Table], reports: Sequence[Report]) -> list[Table]:
    """The first with a title that says on what, where that is the same for all."""
    if not tables or not reports:
        return list(tables)
    first, *others = tables
    title = first.title or ("" if differing(reports) else _on(reports[0]))
    return [replace(first, title=title), *others]


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


def best_marked(
    table: Table, columns: Collection[str], best: Callable[[Iterable[float]], float] = max
) -> Table:
    """The table with the best value of each of these columns, by their headings, marked.

    None is marked where all agree.

    Args:
        best: ``max`` where more is better, else ``min``.
    """
    places = [at for at, column in enumerate(table.columns) if column.heading in columns]
    columns_of = {at: [row[at].value for row in table.rows] for at in places}
    known = {at: {one for one in found if one is not None} for at, found in columns_of.items()}
    values = {at: best(found) for at, found in known.items() if len(found) > 1}
    rows = [
        [replace(cell, best=at in values and cell.value == values[at]) for at, cell in enumerate(r)]
        for r in table.rows
    ]
    return replace(table, rows=rows)
