"""One report as GitHub-flavoured markdown. Foreign text is escaped, cell by cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from robaudit.report.details import layer_rows, spread_rows, trace_symbol
from robaudit.report.facts import header_rows, measurement_cells, provenance_rows, settings_text
from robaudit.report.naming import name_of
from robaudit.report.numbers import number, percent, shown_number
from robaudit.report.radii import curve_cells
from robaudit.report.text import markdown
from robaudit.report.verdicts import verdicts
from robaudit.report.words import (
    DOUBTS_HEADING,
    doubts,
    has_splits,
    label,
    not_measured,
    ordered,
    warnings,
)
from robaudit.schema import Report


def to_markdown(report: Report) -> str:
    """The whole report: header, measurements, layers, verdicts, settings and provenance.

    Raises:
        DataError: the layer table of ``wci`` cannot be read.
    """
    parts = [
        f"# robaudit: {markdown(name_of(report.subject))}",
        _table(("", ""), header_rows(report)),
        "## Measurements",
        _measurements(report),
    ]
    headings, cells = curve_cells(report)
    if cells:
        parts += ["## Accuracy within each radius, %", _table(headings, cells, "r" * 20)]
    for heading, lines in (
        ("Not measured", not_measured(report)),
        (DOUBTS_HEADING, doubts(report)),
        ("Warnings", warnings(report)),
        ("What to make of it", verdicts(report)),
    ):
        if lines:
            parts += [f"## {heading}", "\n".join(f"- {markdown(line)}" for line in lines)]
    layers = _layers(report)
    if layers:
        parts += ["## Layers", layers]
    spreads = spread_rows(report)
    if spreads:
        rows = [
            (
                row.name,
                f"{row.dimension:,}",
                *shown_number(row.mean, row.mean_standard_error),
                *shown_number(row.deviation, row.standard_error),
            )
            for row in spreads
        ]
        columns = ("Layer", "Count", "Mean", "s.e.", "Deviation", "s.e.")
        parts += ["## Eigenvalues by layer", _table(columns, rows, " rrrrr")]
    settings = [(label(m), m.split, settings_text(m)) for m in ordered(report) if m.settings]
    if settings:
        parts += ["## Settings", _table(("Measurement", "Split", "Settings"), settings)]
    provenance = provenance_rows(report.provenance, report.robaudit)
    parts += ["## Provenance", _table(("", ""), provenance)]
    return "\n\n".join(parts) + "\n"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], numeric: str = "") -> str:
    """A table of escaped cells; ``numeric`` has an ``r`` where a column is flush right."""
    rules = ("---:" if numeric[i : i + 1] == "r" else "---" for i in range(len(headings)))
    lines = [_line(headings), f"| {' | '.join(rules)} |", *(_line(row) for row in rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(markdown(cell) for cell in cells)} |"


def _measurements(report: Report) -> str:
    headings, rows = measurement_cells(report)
    cells = _table(headings, [row for _, row in rows], " r   rr" if len(headings) > 6 else " r  rr")
    return f"{cells}\n\nIntervals at the level named; ± is one standard error."


def _layers(report: Report) -> str:
    tables = []
    for split in ("test", "train"):
        rows = []
        for row in layer_rows(report, split):
            trace, error = shown_number(row.trace, row.standard_error)
            norm, added = number(row.frobenius), number(row.contribution)
            rows.append((row.name, norm, trace, error, added, percent(row.share or 0)))
        symbol = trace_symbol(report, split)
        headings = ("Layer", "||W_k||_F", symbol, "s.e.", "Contribution", "Share of WCI")
        if rows:
            caption = f"On the {split} examples:\n\n" if has_splits(report) else ""
            tables.append(caption + _table(headings, rows, " rrrrr"))
    return "\n\n".join(tables)
