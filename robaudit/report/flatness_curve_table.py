"""Flatness over radii and over checkpoints, as tables for a terminal and as CSV."""

from __future__ import annotations

import csv
import io

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from robaudit.report.curve import Number
from robaudit.report.curve_axis import shown_place
from robaudit.report.flatness_curve import (
    QUANTITIES,
    FlatnessCurve,
    correlation_words,
    sweep_rows,
)
from robaudit.report.naming import IDENTITY, identity, name_of
from robaudit.report.numbers import aligned, shown_number
from robaudit.report.text import csv_cell
from robaudit.report.words import label
from robaudit.schema import Report

_COLUMNS = {
    "loss_robust": "Robust loss\nnats",
    "flatness_average": "Flatness\naverage",
    "flatness_worst": "Flatness\nworst",
    "flatness_clean_average": "Clean fl.\naverage",
    "flatness_clean_worst": "Clean fl.\nworst",
    "hessian_largest": "Largest\neigenvalue",
}
_FLATNESS = {"flatness_average": "average flatness", "flatness_worst": "worst-case flatness"}


def flatness_view(curve: FlatnessCurve) -> RenderableType:
    """One row a checkpoint, and how flatness goes with the robust loss."""
    table = _table()
    by_order = curve.axis.by == "order"
    table.add_column("Model" if by_order else curve.axis.name.capitalize(), overflow="fold")
    columns = [_cells(curve.column(key)) for key in _COLUMNS if curve.has(key)]
    for heading in (words for key, words in _COLUMNS.items() if curve.has(key)):
        table.add_column(heading, justify="right", no_wrap=True)
    for at, point in enumerate(curve.points):
        first = point.name if by_order else shown_place(point.place)
        table.add_row(Text(first), *(Text(column[at]) for column in columns))
    notes = Table.grid(padding=(0, 1))
    for note in [*correlation_notes(curve), *curve.notes]:
        notes.add_row(Text(" -"), Text(note, overflow="fold"))
    return Group(table, Text(), notes)


def correlation_notes(curve: FlatnessCurve) -> list[str]:
    """One line for each flatness that goes, or does not go, with the robust loss."""
    lines = [
        f"Robust loss and {_FLATNESS[name]} over {found.n} models: "
        f"{', '.join(correlation_words(found))}."
        for name, found in curve.correlations.items()
    ]
    if any(found.pearson_interval for found in curve.correlations.values()):
        lines.append("In brackets: 95 % bootstrap intervals over the models.")
    if lines and curve.connected:
        lines.append("Checkpoints of one run are no random sample: the intervals only describe.")
    return lines


def flatness_csv(curve: FlatnessCurve) -> str:
    """One row a checkpoint, numbers unrounded; an empty cell is a number that was not measured."""
    text = io.StringIO()
    names = [name for key in QUANTITIES for name in (key, f"{key}_standard_error")]
    subject = ["axis", "place", "subject", "sha256", *IDENTITY, "norm", "eps", "n"]
    writer = csv.DictWriter(text, [*subject, *names], lineterminator="\n")
    writer.writeheader()
    for point in curve.points:
        row: dict[str, object] = {
            "axis": csv_cell(curve.axis.name),
            "place": shown_place(point.place),
            "subject": csv_cell(point.source),
        }
        if (report := point.report) is not None:
            row["sha256"] = csv_cell(report.subject.sha256 or "")
            row |= identity(report.subject)
            row["n"] = report.data.n
            if (threat := report.threat) is not None:
                row |= {"norm": threat.norm, "eps": threat.eps}
        for key, found in point.numbers.items():
            row[key], row[f"{key}_standard_error"] = found.value, found.standard_error
        writer.writerow(row)
    return text.getvalue()


def sweep_view(report: Report, named: bool = False) -> RenderableType | None:
    """A table over relative radii for each flatness that has several; ``None`` where none has.

    ``named``: say of which model.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    tables: list[RenderableType] = []
    for measurement in report.measurements:
        rows = sweep_rows(measurement)
        if not rows:
            continue
        of = f" of {name_of(report.subject)}" if named else ""
        table = _table()
        title = Text(f"{label(measurement)}{of}, over radii", style="bold")
        drawn = any(row.perturbations for row in rows)
        for heading in ("xi", "Rise, nats", *(["Draws"] if drawn else [])):
            table.add_column(heading, justify="right", no_wrap=True)
        cells = _cells([Number(row.value, row.standard_error) for row in rows])
        for row, cell in zip(rows, cells, strict=True):
            table.add_row(f"{row.xi:g}", cell, *([str(row.perturbations or "-")] if drawn else []))
        tables += [*([Text()] if tables else []), title, table]
    return Group(*tables) if tables else None


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", padding=(0, 0, 0, 1))


def _cells(column: list[Number | None] | list[Number]) -> list[str]:
    """Values whose points stand under each other; ``-`` for a gap."""
    shown = [None if n is None else shown_number(n.value, n.standard_error) for n in column]
    values = aligned(["" if pair is None else pair[0] for pair in shown])
    errors = aligned(["" if pair is None else pair[1] for pair in shown])
    wide = max(map(len, errors), default=0)
    return [
        "-" if pair is None else value + (f" ±{error.ljust(wide)}" if error.strip() else "")
        for pair, value, error in zip(shown, values, errors, strict=True)
    ]
