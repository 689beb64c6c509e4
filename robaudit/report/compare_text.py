"""A comparison as JSON, CSV and markdown; the first two hold every example that changed."""

from __future__ import annotations

import json
from typing import Any

from robaudit.report.compare import Comparison, Difference
from robaudit.report.compare_words import changed, headings, notes, provenance, rows
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.table import Table
from robaudit.report.text import markdown
from robaudit.schema import Report

_COLUMNS = (
    *("first_source", "second_source", "data", "split", "name", "how", "reason", "unit", "n"),
    *("first", "second", "difference", "low", "high", "level", "method", "standard_error"),
    *("p_value", "p_holm", "only_first", "only_second", "first_doubts", "second_doubts"),
)


def compare_json(comparison: Comparison) -> str:
    """The whole comparison as one object, in text that ends in a newline."""
    found = {
        "schema_version": 1,
        "first": _report(comparison.first, comparison.names[0]),
        "second": _report(comparison.second, comparison.names[1]),
        "differences": [_row(row) for row in comparison.differences],
        "notes": notes(comparison),
    }
    return json.dumps(found, indent=2, allow_nan=False) + "\n"


def compare_csv(comparison: Comparison) -> str:
    """One row a measurement; the examples that changed are places separated by spaces."""
    first, second = comparison.first, comparison.second
    table = []
    for difference in comparison.differences:
        row = _row(difference)
        interval = row["interval"] or {}
        row |= {key: interval.get(key) for key in ("low", "high", "level", "method")}
        for key in ("only_first", "only_second"):
            row[key] = None if row[key] is None else " ".join(map(str, row[key]))
        for key in ("first_doubts", "second_doubts"):
            row[key] = "; ".join(row[key])
        row |= {
            "first_source": first.subject.source,
            "second_source": second.subject.source,
            "data": first.data.name,
        }
        table.append([row[column] for column in _COLUMNS])
    return csv_text(Table.of(_COLUMNS, table))


def compare_markdown(comparison: Comparison) -> str:
    """The table, which examples changed, notes, and the provenance of both."""
    one, other = (markdown(name) for name in comparison.names)
    table = [headings(comparison), *rows(comparison)]
    lines = [_line(vars(row).values()) for row in table]
    lines.insert(1, "| --- | ---: | ---: | ---: | ---: | ---: |")
    parts = [f"# robaudit: {one} and {other}", "\n".join(lines)]
    for heading, said in (
        ("Examples that changed", changed(comparison)),
        ("Notes", notes(comparison)),
    ):
        if said:
            parts += [f"## {heading}", "\n".join(f"- {markdown(line)}" for line in said)]
    facts = [_line(("", *comparison.names)), "| --- | --- | --- |"]
    facts += [_line(row) for row in provenance(comparison)]
    return "\n\n".join([*parts, "## Provenance", "\n".join(facts)]) + "\n"


def _line(cells: Any) -> str:
    return f"| {' | '.join(markdown(cell) for cell in cells)} |"


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
