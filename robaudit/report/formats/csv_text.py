"""A table as CSV."""

from __future__ import annotations

import csv
import io

from robaudit.report.table import Cell, Table
from robaudit.report.text import csv_cell


def csv_text(table: Table) -> str:
    """The columns and rows: numbers unrounded, an error bar in a column of its own.

    Text that a spreadsheet would take for a formula is preceded by ``'``.
    """
    spreads = [any(row[at].spread for row in table.rows) for at in range(len(table.columns))]
    header: list[object] = []
    for column, has_spread in zip(table.columns, spreads, strict=True):
        name = csv_cell(column.heading.replace("\n", " "))
        header += [name, f"{name} error bar"] if has_spread else [name]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in table.rows:
        cells: list[object] = []
        for cell, has_spread in zip(row, spreads, strict=True):
            cells += [_value(cell), csv_cell(cell.spread)] if has_spread else [_value(cell)]
        writer.writerow(cells)
    return text.getvalue()


def _value(cell: Cell) -> object:
    if cell.value is not None:  # our own number, no formula although it may begin with a minus
        return cell.value
    return "" if cell.tone == "missing" else csv_cell(cell.text)
