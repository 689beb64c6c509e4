"""Accuracy under each corruption at each severity, as tables; and reference errors from a file."""

from __future__ import annotations

import csv
from pathlib import Path

from robaudit.audit.reference_errors import ReferenceErrors
from robaudit.datasets import SEVERITIES
from robaudit.errors import DataError
from robaudit.report.details import corruption_errors, corruption_rows
from robaudit.report.jsonfile import read_report
from robaudit.report.naming import SUBJECT, name_of, subject_cells
from robaudit.report.table import MISSING, Cell, Column, Table, names
from robaudit.report.text import plain
from robaudit.schema import Report

_COLUMNS = (*SUBJECT, "data", "corruption", "severity", "accuracy", "low", "high", "n", "error")
_FORM = "It has a line corruption,error or corruption,severity,error for each, errors as fractions."


def corruption_tables(report: Report) -> list[Table]:
    """A row a corruption, a column a severity; none where corruptions were not measured.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    rows = corruption_rows(report)
    if not rows:
        return []
    errors = corruption_errors(report)
    levels = [one.severity for one in rows[0].severities]
    cells = [
        [
            Cell(row.name),
            Cell(
                f"{100 * row.accuracy:.1f}",
                f"[{100 * row.low:.1f}, {100 * row.high:.1f}]",
                value=row.accuracy,
            ),
            *(Cell(f"{100 * one.accuracy:.1f}", value=one.accuracy) for one in row.severities),
            *([_relative(errors.get(row.name))] if errors else []),
        ]
        for row in rows
    ]
    columns = [names("Corruption"), Column("Mean %"), *(Column(f"Sev. {s}") for s in levels)]
    columns += [Column("CE %")] if errors else []
    return [Table(columns, cells, "Corruptions", notes=_notes(report))]


def corruptions_csv(report: Report) -> Table | None:
    """A row for each corruption and severity, numbers unrounded; ``None`` where not measured.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    rows = corruption_rows(report)
    if not rows:
        return None
    found = report.get("accuracy.corruptions")
    n = None if found is None else found.n
    subject = {**subject_cells(report), "data": report.data.name}
    about = [subject.get(column) for column in (*SUBJECT, "data")]
    return Table.of(
        _COLUMNS,
        [
            [*about, row.name, one.severity, one.accuracy, one.low, one.high, n, 1 - one.accuracy]
            for row in rows
            for one in row.severities
        ],
    )


def read_reference(file: Path) -> ReferenceErrors:
    """Errors of a reference model, from a CSV file or from a report of ``robaudit corruptions``.

    Args:
        file: CSV with the columns ``corruption`` and ``error``, or ``corruption``, ``severity`` and
            ``error`` (fractions; the ``corruptions.csv`` of a report folder is one); or a report's
            folder or ``report.json``.

    Raises:
        DataError: it cannot be read, or lacks errors.
        UsageError: there is no report.
    """
    if file.is_dir() or file.suffix.lower() == ".json":
        return _of_report(file)
    try:
        with file.open(encoding="utf-8", newline="") as text:
            lines = list(csv.DictReader(text))
    except (OSError, ValueError, csv.Error) as error:
        said = getattr(error, "strerror", None) or error
        raise DataError(f"{plain(file)} cannot be read: {plain(said)}", _FORM) from None
    found: dict[str, dict[int, float]] = {}
    for at, line in enumerate(lines, 2):
        name, severity, wrong = _line(line, f"{plain(file)}, line {at}")
        if severity in found.setdefault(name, {}):
            raise DataError(f"{plain(file)}, line {at}: {plain(name)} is there twice", _FORM)
        found[name][severity] = wrong
    if not found:
        raise DataError(f"{plain(file)} has no errors in it", _FORM)
    errors = []
    for name, levels in found.items():
        if set(levels) not in ({0}, set(SEVERITIES)):
            raise DataError(
                f"{plain(file)}: {plain(name)} has not all of the severities 1 to 5", _FORM
            )
        if not sum(levels.values()):
            raise DataError(f"{plain(file)}: the error under {plain(name)} is 0", _FORM)
        errors.append((name, tuple(levels[level] for level in sorted(levels))))
    return ReferenceErrors(file.stem, tuple(errors))


def _line(line: dict[str, str | None], where: str) -> tuple[str, int, float]:
    """Corruption, severity (0 where none is stated) and error."""
    name, said = (line.get("corruption") or "").strip(), line.get("error")
    severity = (line.get("severity") or "0").strip()
    try:
        error = float(said or "")
    except ValueError:
        raise DataError(f"{where}: no error of a corruption", _FORM) from None
    if not name or not severity.isdigit() or int(severity) > len(SEVERITIES):
        raise DataError(f"{where}: no corruption, or no severity from 1 to 5", _FORM)
    if not 0 <= error <= 1:
        raise DataError(f"{where}: the error {error:g} is no fraction", "Divide per cents by 100.")
    return name, int(severity), error


def _of_report(file: Path) -> ReferenceErrors:
    report = read_report(file)
    rows = corruption_rows(report)
    levels = [one.severity for row in rows for one in row.severities]
    if not rows or levels != list(SEVERITIES) * len(rows):
        raise DataError(
            f"{plain(file)} has no errors under corruptions at all five severities",
            "Give a report of robaudit corruptions.",
        )
    errors = tuple((row.name, tuple(1 - one.accuracy for one in row.severities)) for row in rows)
    flawless = [name for name, levels in errors if not sum(levels)]
    if flawless:
        raise DataError(
            f"{plain(file)} has no error at all under {plain(flawless[0])}, to which others relate",
            "Measure the reference on more images.",
        )
    return ReferenceErrors(name_of(report.subject), errors)


def _relative(error: float | None) -> Cell:
    return MISSING if error is None else Cell(f"{100 * error:.1f}", value=error)


def _notes(report: Report) -> list[str]:
    mce = report.get("corruptions.mce")
    if mce is None or mce.value is None:
        return []
    return [f"CE: the error relative to that of {plain(mce.settings.get('reference'))}."]
