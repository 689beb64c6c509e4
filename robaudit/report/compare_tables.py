"""A comparison of two audits as tables for every format, and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from robaudit.report.compare import Comparison, Difference
from robaudit.report.facts import provenance_rows, short_threat, subject_rows, threat_text
from robaudit.report.formats.markdown import markdown_document
from robaudit.report.numbers import shown
from robaudit.report.table import Cell, Column, Table, Tone, bullets, measured, names, text
from robaudit.report.text import plain
from robaudit.report.words import doubts
from robaudit.schema import Measurement, Report

_FEW = 8
_TONES: dict[str | None, Tone] = {"better": "good", "worse": "bad"}
_DATA = (
    *("first_source", "second_source", "data", "split", "name", "how", "reason", "unit", "n"),
    *("first", "second", "difference", "low", "high", "level", "method", "standard_error"),
    *("p_value", "p_holm", "only_first", "only_second", "first_doubts", "second_doubts"),
)


def compare_tables(comparison: Comparison) -> list[Table]:
    """The differences, which examples changed, and the notes; the first has the title."""
    return [
        difference_table(comparison),
        *bullets(
            "Examples that changed, by their places in the data set", changed_lines(comparison)
        ),
        *bullets("Notes", note_lines(comparison)),
    ]


def compare_markdown(comparison: Comparison) -> str:
    """The comparison as a markdown document, with the provenance of both audits."""
    columns = [names(), *map(text, comparison.names)]
    rows = [list(map(Cell, row)) for row in provenance(comparison)]
    return markdown_document(*compare_tables(comparison), Table(columns, rows, "Provenance"))


def comparison_paper(comparison: Comparison) -> list[Table]:
    """The differences with the notes below them, for a paper or a notebook."""
    return [replace(difference_table(comparison), notes=note_lines(comparison))]


def difference_table(comparison: Comparison, judged: bool = False) -> Table:
    """One row a measurement: both values, their difference, its p-value, how many changed.

    Args:
        judged: with a column that says better or worse, where that is not open.
    """
    one, other = comparison.names
    data, threats = comparison.first.data, [comparison.first.threat, comparison.second.threat]
    splits = any(row.split not in (data.split, "gap") for row in comparison.differences)
    models = " and ".join(dict.fromkeys(map(short_threat, threats)))
    columns = [
        names("Measurement"),
        Column(one, folds=True),
        Column(other, folds=True),
        Column("Difference"),
        *([text("Result")] if judged else []),
        Column("p"),
        Column("Changed"),
    ]
    rows = [
        [
            Cell(_label(row, splits)),
            _value(row.first),
            _value(row.second),
            _difference(row),
            *([Cell(row.result or "", tone=_TONES.get(row.result, ""))] if judged else []),
            Cell("") if row.holm is None else Cell(p_text(row.holm), value=row.holm),
            Cell(_counts(row)),
        ]
        for row in comparison.differences
    ]
    return Table(
        columns,
        rows,
        f"robaudit: {one} and {other}",
        f"{plain(data.name)} {plain(data.split)}, the same {data.n:,} examples, {models}",
    )


def changed_lines(comparison: Comparison) -> list[str]:
    """Which examples one model alone got right, the first few of each."""
    one, other = comparison.names
    lines = []
    for row in comparison.differences:
        parts = [
            f"{len(places):,} only by {name} ({_few(places)})"
            for name, places in ((one, row.only_first), (other, row.only_second))
            if places
        ]
        if parts:
            split = "" if row.split == comparison.first.data.split else f" ({plain(row.split)})"
            lines.append(f"{row.label}{split}: right {', '.join(parts)}.")
    return lines


def note_lines(comparison: Comparison) -> list[str]:
    """How to read the table, doubts, and once each why measurements cannot be compared."""
    labels: dict[str, list[str]] = {}
    for row in comparison.differences:
        if row.reason is not None:
            labels.setdefault(row.reason, []).append(row.label)
    reasons = [
        f"Not comparable: {', '.join(dict.fromkeys(which))}: {reason}."
        for reason, which in labels.items()
    ]
    meant = (
        f"Differences are {comparison.names[1]} minus {comparison.names[0]}, those of per cents in "
        "points; after them stands the 95 % interval. -3 +5 means that three examples are no "
        "longer right and five are now."
    )
    reports = (comparison.first, comparison.second)
    doubted = [
        f"{name}: {line}"
        for name, report in zip(comparison.names, reports, strict=True)
        for line in doubts(report)
    ]
    if doubted:
        meant += " Values that end in ? may overstate robustness; so their difference says little."
    return [meant, *doubted, *comparison.notes, *reasons]


def provenance(comparison: Comparison) -> list[tuple[str, str, str]]:
    """What was audited and how: a name, and what it is for the first and for the second."""
    one, other = (_facts(report) for report in (comparison.first, comparison.second))
    return [(key, one.get(key, ""), other.get(key, "")) for key in {**one, **other}]


def compare_json(comparison: Comparison) -> str:
    """The whole comparison as one object with every example that changed, ending in a newline."""
    found = {
        "schema_version": 1,
        "first": _report(comparison.first, comparison.names[0]),
        "second": _report(comparison.second, comparison.names[1]),
        "differences": [_row(row) for row in comparison.differences],
        "notes": note_lines(comparison),
    }
    return json.dumps(found, indent=2, allow_nan=False) + "\n"


def compare_data(comparison: Comparison) -> Table:
    """For CSV: one row a measurement; the examples that changed are places between spaces."""
    first, second = comparison.first, comparison.second
    sources = {
        "first_source": first.subject.source,
        "second_source": second.subject.source,
        "data": first.data.name,
    }
    rows = []
    for difference in comparison.differences:
        row = {**sources, **_row(difference)}
        row |= row["interval"] or {}
        for key in ("only_first", "only_second"):
            row[key] = None if row[key] is None else " ".join(map(str, row[key]))
        for key in ("first_doubts", "second_doubts"):
            row[key] = "; ".join(row[key])
        rows.append([row.get(column) for column in _DATA])
    return Table.of(_DATA, rows)


def p_text(p_value: float) -> str:
    """Two significant digits.

    >>> p_text(0.0768), p_text(1.0), p_text(1e-9)
    ('0.077', '1', '<0.0001')
    """
    return "<0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def _facts(report: Report) -> dict[str, str]:
    return {
        **dict(subject_rows(report.subject)),
        "Threat model": threat_text(report.threat),
        **dict(provenance_rows(report.provenance, report.robaudit)),
    }


def _label(row: Difference, splits: bool) -> str:
    return f"{row.label} ({plain(row.split)})" if splits and row.split != "gap" else row.label


def _value(measurement: Measurement | None) -> Cell:
    cell = measured(measurement)
    if measurement is None or measurement.value is None:
        return cell
    unit = " %" if shown(measurement).unit == "%" else ""
    return Cell(cell.text + unit, value=cell.value)


def _difference(row: Difference) -> Cell:
    if row.value is None:
        return Cell("not comparable", tone="missing")
    # A difference of fractions is in points, as a gap is.
    cell = measured(
        Measurement(
            name=row.name,
            value=row.value,
            unit=row.unit,
            split="gap",
            interval=row.interval,
            standard_error=row.standard_error,
        )
    )
    sign = "+" if row.value > 0 else ""
    return Cell(f"{sign}{cell.text}", cell.spread, value=row.value)


def _counts(row: Difference) -> str:
    if row.only_first is None or row.only_second is None:
        return ""
    return f"-{len(row.only_first)} +{len(row.only_second)}"


def _few(places: tuple[int, ...]) -> str:
    listed = ", ".join(str(place) for place in places[:_FEW])
    return listed if len(places) <= _FEW else f"{listed}, ..."


def _report(report: Report, name: str) -> dict[str, Any]:
    whole = report.model_dump(mode="json")
    kept = ("robaudit", "subject", "data", "train_data", "threat", "provenance")
    return {"name": name, **{key: whole[key] for key in kept}}


def _row(row: Difference) -> dict[str, Any]:
    return {
        "name": row.name,
        "split": row.split,
        "unit": row.unit,
        "how": row.how,
        "reason": row.reason,
        "n": row.n,
        "first": row.first and row.first.value,
        "second": row.second and row.second.value,
        "difference": row.value,
        "interval": row.interval and row.interval.model_dump(),
        "standard_error": row.standard_error,
        "p_value": row.p_value,
        "p_holm": row.holm,
        "only_first": row.only_first,
        "only_second": row.only_second,
        "first_doubts": row.first.doubts if row.first else [],
        "second_doubts": row.second.doubts if row.second else [],
    }
