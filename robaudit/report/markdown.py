"""One report as GitHub-flavoured markdown. Foreign text is escaped, cell by cell."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence

from robaudit.report.details import layer_rows, spread_rows, trace_symbol
from robaudit.report.numbers import number, percent, radius, shown, shown_number
from robaudit.report.radii import curve_cells
from robaudit.report.text import markdown, model_name
from robaudit.report.verdicts import verdicts
from robaudit.report.words import (
    evidence,
    has_splits,
    interval_heading,
    label,
    normalization,
    not_measured,
    ordered,
    warnings,
)
from robaudit.schema import Data, Measurement, Report


def to_markdown(report: Report) -> str:
    """The whole report: header, measurements, layers, verdicts, settings and provenance.

    Raises:
        DataError: the layer table of ``wci`` cannot be read.
    """
    parts = [
        f"# robaudit: {markdown(model_name(report.subject.source))}",
        _table(("", ""), _header(report)),
        "## Measurements",
        _measurements(report),
    ]
    headings, cells = curve_cells(report)
    if cells:
        parts += ["## Accuracy within each radius, %", _table(headings, cells, "r" * 20)]
    for heading, lines in (
        ("Not measured", not_measured(report)),
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
    settings = [(label(m), m.split, _pairs(m)) for m in ordered(report) if m.settings]
    if settings:
        parts += ["## Settings", _table(("Measurement", "Split", "Settings"), settings)]
    parts += ["## Provenance", _table(("", ""), _provenance(report))]
    return "\n\n".join(parts) + "\n"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], numeric: str = "") -> str:
    """A table of escaped cells; ``numeric`` has an ``r`` where a column is flush right."""
    rules = ("---:" if numeric[i : i + 1] == "r" else "---" for i in range(len(headings)))
    lines = [_line(headings), f"| {' | '.join(rules)} |", *(_line(row) for row in rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(markdown(cell) for cell in cells)} |"


def _header(report: Report) -> list[tuple[str, str]]:
    subject, threat = report.subject, report.threat
    rows = [
        ("Checkpoint", f"{subject.source} ({subject.format})"),
        ("sha256", subject.sha256 or "none"),
        ("Architecture", f"{subject.architecture}, {subject.parameters:,} parameters"),
        ("Identified by", subject.identified_by),
        ("Normalisation", normalization(subject)),
        *([("Tried on the data", tried)] if (tried := evidence(subject)) else []),
        ("Data", _data(report.data)),
    ]
    if report.train_data is not None:
        rows.append(("Training data", _data(report.train_data)))
    rows.append(("Threat model", f"{threat.norm}, eps = {radius(threat.eps)}, images in [0, 1]"))
    return rows


def _data(data: Data) -> str:
    classes = f", {data.classes} classes" if data.classes else ""
    return f"{data.name}, {data.n} {data.split} examples{classes}, sha256 {data.sha256}"


def _measurements(report: Report) -> str:
    splits = has_splits(report)
    headings = ["Measurement", "Value", interval_heading(report), "Unit", "n", "Seconds"]
    if splits:
        headings.insert(4, "Split")
    rows = []
    for m in ordered(report):
        parts = shown(m) if m.status == "ok" else None
        row = [
            label(m),
            parts.value if parts else m.status,
            parts.spread if parts else "",
            parts.unit if parts else "",
            "" if m.n is None else str(m.n),
            "" if m.seconds is None else f"{m.seconds:.1f}",
        ]
        if splits:
            row.insert(4, "both" if m.split == "gap" else m.split)
        rows.append(row)
    note = "Intervals at the level named; ± is one standard error."
    return f"{_table(headings, rows, ' r   rr' if splits else ' r  rr')}\n\n{note}"


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


def _pairs(measurement: Measurement) -> str:
    return ", ".join(
        f"{key} = {value if isinstance(value, str) else json.dumps(value, default=str)}"
        for key, value in measurement.settings.items()
    )


def _provenance(report: Report) -> list[tuple[str, str]]:
    p = report.provenance
    rows = [
        ("Command", shlex.join(p.argv)),
        ("Started", p.started),
        ("Seconds", f"{p.seconds:.1f}"),
        ("Device", p.device),
        ("Precision", p.precision),
        ("Batch size", "none" if p.batch_size is None else str(p.batch_size)),
        ("Seed", str(p.seed)),
        ("robaudit", report.robaudit),
        ("Versions", ", ".join(f"{name} {version}" for name, version in p.versions.items())),
    ]
    if p.git is not None:
        rows.append(("Commit", p.git.commit + (" with changes" if p.git.dirty else "")))
    return rows
