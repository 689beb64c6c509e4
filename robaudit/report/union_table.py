"""What attacks in each norm of a union broke, as a table."""

from __future__ import annotations

from robaudit.report.details import extra, union_rows
from robaudit.report.numbers import percent
from robaudit.report.table import Cell, Column, Table, names
from robaudit.report.text import plain
from robaudit.report.words import attack_in_words
from robaudit.schema import Measurement, Report
from robaudit.types import radius


def union_table(report: Report) -> Table | None:
    """Norm by norm: examples tried, broken and left; ``None`` where no union was measured.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    found, rows = report.get("accuracy.union"), union_rows(report)
    if found is None or not rows or not found.n:
        return None
    n = found.n
    each = all(row.accuracy is not None for row in rows)
    columns = [names("Norm"), Column("eps"), Column("Tried"), Column("Broken")]
    columns += [Column("Broken by\nit alone"), Column("Accuracy, %")] if each else []
    columns.append(Column("Left standing, %"))
    cells = []
    for row in rows:
        line = [Cell(plain(row.norm)), Cell(radius(row.eps), value=row.eps)]
        line += [Cell(str(count), value=count) for count in (row.tried, row.broken)]
        if row.accuracy is not None and row.low is not None and row.high is not None and each:
            spread = f"[{100 * row.low:.1f}, {100 * row.high:.1f}]"
            line.append(Cell(str(row.alone), value=row.alone))
            line.append(Cell(f"{100 * row.accuracy:.1f}", spread, value=row.accuracy))
        line.append(Cell(f"{100 * row.left / n:.1f}", value=row.left / n))
        cells.append(line)
    return Table(columns, cells, "Union of norms", notes=_notes(found, each))


def _notes(found: Measurement, each: bool) -> list[str]:
    notes = [
        "Every correctly classified example was attacked in every norm."
        if each
        else "A norm is tried on what those above it left standing: its broken examples are what "
        "it adds to them, not all that it would break."
    ]
    reused = extra(found, "reused")
    if isinstance(reused, list) and reused:
        by = ", ".join(attack_in_words(plain(str(name))) for name in reused)
        notes.append(f"In the norm of the audit, what was known of {by} was taken over.")
    return notes


def union_line(report: Report) -> list[str]:
    """The union in a sentence; nothing where it was not measured."""
    found, rows = report.get("accuracy.union"), union_rows(report)
    if found is None or found.value is None or not rows:
        return []
    balls = [f"{plain(row.norm)} {radius(row.eps)}" for row in rows]
    listed = f"{', '.join(balls[:-1])} and {balls[-1]}"
    return [f"{percent(found.value)} withstand the attacks in all of {listed}: an upper bound."]
