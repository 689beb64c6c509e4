"""Reports as CSV in long format: one row a measurement, or one row a layer."""

from __future__ import annotations

from collections.abc import Iterable

from robaudit.report.details import extra, layer_rows
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.naming import SUBJECT, subject_cells
from robaudit.report.table import Table
from robaudit.schema import Report

_SUBJECT = (*SUBJECT, "data", "split", "norm", "eps")
COLUMNS = (
    *_SUBJECT,
    *("name", "status", "reason", "value", "unit", "n"),
    *("low", "high", "level", "method", "standard_error", "seconds"),
    "doubts",
)
_LAYER = (
    *_SUBJECT,
    *("layer", "frobenius", "trace", "standard_error", "contribution", "share", "quantity"),
)


def to_csv(*reports: Report) -> str:
    """One row a measurement, all reports under one header; numbers unrounded, no per cents.

    An empty cell is a number that was not measured. Text that a spreadsheet would take for a
    formula is preceded by ``'``.
    """
    return csv_text(Table.of(COLUMNS, measurement_rows(reports)))


def measurement_rows(reports: Iterable[Report]) -> list[tuple[object, ...]]:
    """The cells of :data:`COLUMNS`, one row a measurement."""
    rows = []
    for report in reports:
        for m in report.measurements:
            interval = m.interval
            limits = (
                (interval.low, interval.high, interval.level, interval.method)
                if interval
                else (None, None, None, None)
            )
            rows.append(
                (
                    *_subject(report, m.split),
                    *(m.name, m.status, m.reason, m.value, m.unit, m.n),
                    *limits,
                    *(m.standard_error, m.seconds, "; ".join(m.doubts)),
                )
            )
    return rows


def layers_csv(*reports: Report) -> str:
    """One row a layer of ``wci`` and split; the header alone where there is no layer table.

    Raises:
        DataError: a layer table that cannot be read.
    """
    rows = []
    for report in reports:
        for split in dict.fromkeys(m.split for m in report.measurements if m.name == "wci"):
            measurement = report.get("wci", split)
            quantity = extra(measurement, "quantity") if measurement else None
            rows += [
                (
                    *_subject(report, split),
                    *(row.name, row.frobenius, row.trace, row.standard_error),
                    *(row.contribution, row.share, quantity),
                )
                for row in layer_rows(report, split)
            ]
    return csv_text(Table.of(_LAYER, rows))


def _subject(report: Report, split: str) -> tuple[object, ...]:
    data = report.train_data if split == "train" and report.train_data else report.data
    cells = {**subject_cells(report), "data": data.name, "split": split}
    return tuple(cells.get(column) for column in _SUBJECT)
