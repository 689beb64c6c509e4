"""One report as tables: what was audited, every measurement, layers, doubts, what it means."""

from __future__ import annotations

import math
from dataclasses import replace

from robaudit.report.class_tables import class_tables, confusion_table
from robaudit.report.corruptions import corruption_tables
from robaudit.report.details import (
    RadiusRow,
    SpectralDensity,
    density,
    extra,
    extra_number,
    layer_rows,
    robustness_curves,
    spread_rows,
    trace_symbol,
)
from robaudit.report.facts import header_rows, provenance_rows, settings_text
from robaudit.report.formats.markdown import markdown_document
from robaudit.report.naming import name_of
from robaudit.report.numbers import number, percent, shown
from robaudit.report.sparkline import blocks
from robaudit.report.table import (
    Cell,
    Column,
    Table,
    bullets,
    estimate,
    facts,
    measured,
    names,
    text,
)
from robaudit.report.union_table import union_table
from robaudit.report.verdicts import verdicts
from robaudit.report.words import (
    DOUBTS_HEADING,
    attack,
    doubts,
    group,
    has_splits,
    interval_heading,
    label,
    meaning,
    not_measured,
    ordered,
    warnings,
)
from robaudit.schema import Measurement, Report
from robaudit.types import radius

_MOST_LAYERS = 24
_MOST_CLASSES = 10
_HASH = 12  # digits of a hash on a screen
_BINS = 48


def report_tables(report: Report) -> list[Table]:
    """All of the report for a document, with settings and provenance; the first has its title.

    Raises:
        DataError: a table in ``details`` cannot be read.
    """
    splits = ("test", "train") if has_splits(report) else (None,)
    return [
        facts(header_rows(report), _title(report)),
        *_found(report),
        *corruption_tables(report),
        *(one for split in splits for one in class_tables(report, split)),
        *([confusion] if (confusion := confusion_table(report)) else []),
        *(one for split in splits for one in layer_tables(report, split)),
        *spread_tables(report),
        *_said(report),
        *settings_tables(report),
        facts(provenance_rows(report.provenance, report.robaudit), "Provenance"),
    ]


def settings_tables(report: Report) -> list[Table]:
    """The settings of every measurement; none where no measurement has any."""
    rows = [
        [Cell(label(m)), Cell(m.split), Cell(settings_text(m))]
        for m in ordered(report)
        if m.settings
    ]
    columns = [names("Measurement"), text("Split"), text("Settings")]
    return [Table(columns, rows, "Settings")] if rows else []


def to_markdown(report: Report) -> str:
    """The report as a markdown document.

    Raises:
        DataError: a table in ``details`` cannot be read.
    """
    return markdown_document(*report_tables(report))


def report_screen(report: Report) -> list[Table]:
    """The report for a terminal: short hashes, the layers that contribute most, a drawn spectrum.

    Raises:
        DataError: a table in ``details`` cannot be read.
    """
    made = report.provenance
    batch = f", batches of {made.batch_size}" if made.batch_size else ""
    footer = (
        f"{made.started}, {made.seconds:.1f} s on {made.device}, {made.precision}{batch}, "
        f"seed {made.seed}, robaudit {report.robaudit}."
    )
    return [
        facts(header_rows(report, _HASH), _title(report)),
        *_found(report),
        *corruption_tables(report),
        *class_tables(report, most=_MOST_CLASSES),
        *layer_tables(report, most=_MOST_LAYERS),
        *spread_tables(report, _MOST_LAYERS),
        *_spectrum(density(report)),
        *_said(report),
        Table(caption=footer),
    ]


def _title(report: Report) -> str:
    return f"robaudit: {name_of(report.subject)}"


def _found(report: Report) -> list[Table]:
    further = [radii_table(report), union_table(report)]
    return [
        replace(measurement_table(report), notes=["± is one standard error, everywhere."]),
        *bullets("Not measured", not_measured(report)),
        *(table for table in further if table is not None),
    ]


def _said(report: Report) -> list[Table]:
    return [
        *bullets(DOUBTS_HEADING, doubts(report)),
        *bullets("Warnings", warnings(report)),
        *bullets("What to make of it", verdicts(report)),
    ]


def measurement_table(report: Report, only: str = "") -> Table:
    """Every measurement in reading order, with its interval; a line between their groups.

    Args:
        only: the measurements of this group alone, under its name.
    """
    splits = has_splits(report)
    found = [m for m in ordered(report) if only in ("", group(m))]
    columns = [names("Measurement"), Column("Value"), Column(interval_heading(report), "left")]
    columns += [text("Unit"), *([text("Split")] if splits else []), Column("n"), Column("Seconds")]
    rows = [
        [
            Cell(label(m), about=meaning(m.name)),
            *_value_cells(m),
            *([Cell("both" if m.split == "gap" else m.split)] if splits else []),
            Cell("" if m.n is None else str(m.n), value=m.n),
            Cell("" if m.seconds is None else f"{m.seconds:.1f}", tone="soft", value=m.seconds),
        ]
        for m in found
    ]
    sections = {at for at in range(1, len(found)) if group(found[at]) != group(found[at - 1])}
    return Table(columns, rows, only or "Measurements", sections=sections)


def _value_cells(m: Measurement) -> list[Cell]:
    """Value, interval or standard error, and unit."""
    if m.status != "ok":
        return [measured(m), Cell("see below", tone="soft"), Cell()]
    parts = shown(m)
    value = Cell(parts.value, tone="strong", value=m.value)
    return [value, Cell(parts.spread), Cell(parts.unit, tone="soft")]


def radii_table(report: Report) -> Table | None:
    """Accuracy within each radius that was attacked; ``None`` where it was one.

    Raises:
        DataError: a curve that lacks a column or holds no numbers.
    """
    curves = {name: rows for name, rows in robustness_curves(report).items() if rows}
    if not curves:
        return None
    measurements = {m.name: m for m in report.measurements if m.split == report.data.split}
    columns = [Column("eps", names=True), *(Column(attack(measurements[name])) for name in curves)]
    rows = []
    clean = report.get("accuracy.clean")
    if clean is not None and clean.value is not None and clean.interval is not None:
        within = RadiusRow(
            eps=0, value=clean.value, low=clean.interval.low, high=clean.interval.high
        )
        rows.append([Cell("0", value=0), *[_accuracy(within)] * len(curves)])
    for found in zip(*curves.values(), strict=True):
        eps = found[0].eps
        rows.append([Cell(radius(eps), value=eps), *map(_accuracy, found)])
    return Table(columns, rows, "Accuracy within each radius, %")


def _accuracy(within: RadiusRow) -> Cell:
    value, low, high = (f"{100 * one:.1f}" for one in (within.value, within.low, within.high))
    return Cell(value, f"{low}-{high}", value=within.value)


def layer_tables(report: Report, split: str | None = None, most: int | None = None) -> list[Table]:
    """The layers of ``wci`` on one split, in the network's order; none without them.

    Args:
        split: ``None`` for the audited one.
        most: only so many layers, those that contribute most; a note says what is left out.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    rows = layer_rows(report, split)
    measurement = report.get("wci", split)
    if not rows or measurement is None:
        return []
    kept = sorted(rows, key=lambda row: row.contribution, reverse=True)[:most]
    listed = [row for row in rows if row in kept]
    cells = [
        [
            Cell(row.name),
            estimate(row.frobenius),
            estimate(row.trace, row.standard_error),
            estimate(row.contribution),
            Cell(percent(row.share or 0), value=row.share, bar=row.share or 0),
        ]
        for row in listed
    ]
    columns = [
        names("Layer"),
        Column("||W_k||_F"),
        Column(trace_symbol(report, split)),
        Column("Contribution"),
        Column("Share of WCI"),
    ]
    notes = []
    left = [row for row in rows if row not in kept]
    if left:
        rest = percent(sum(row.share or 0 for row in left))
        notes.append(f"{len(left)} smaller layers are not listed; together {rest} of WCI.")
    if isinstance(estimator := extra(measurement, "estimator"), str):
        notes.append(f"Traces by the {estimator} estimator.")
    if (bias := extra_number(measurement, "bias")) is not None:
        notes.append(f"Bias of WCI from the square roots: {number(bias, 2)}.")
    title = "Layers" if split is None else f"Layers, {split} examples"
    return [Table(columns, cells, title, notes=notes)]


def spread_tables(report: Report, most: int | None = None) -> list[Table]:
    """Mean and deviation of each layer's eigenvalues; none where they were not measured.

    Args:
        most: only so many layers, those of the largest deviation.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    rows = spread_rows(report)
    if not rows:
        return []
    kept = sorted(rows, key=lambda row: row.deviation, reverse=True)[:most]
    cells = [
        [
            Cell(row.name),
            Cell(f"{row.dimension:,}", value=row.dimension),
            estimate(row.mean, row.mean_standard_error),
            estimate(row.deviation, row.standard_error),
        ]
        for row in rows
        if row in kept
    ]
    columns = [names("Layer"), Column("Count"), Column("Mean"), Column("Deviation")]
    left = len(rows) - len(cells)
    notes = [f"{left} layers of smaller deviation are not listed."] if left else []
    return [Table(columns, cells, "Eigenvalues by layer", notes=notes)]


def _spectrum(found: SpectralDensity | None) -> list[Table]:
    if found is None:
        return []
    low, high = min(found.grid), max(found.grid)
    bins = [0.0] * _BINS
    for place, mass in zip(found.grid, found.density, strict=True):
        at = min(int((place - low) / (high - low) * _BINS) if high > low else 0, _BINS - 1)
        bins[at] = max(bins[at], mass)
    peak = max(bins)
    heights = [mass / peak if peak > 0 else 0 for mass in bins]
    drawn = blocks([max(0.0, 1 + math.log10(one) / 6) if one > 0 else 0.0 for one in heights])
    row = [Cell(number(low, 3)), Cell(drawn, tone="accent"), Cell(number(high, 3))]
    caption = "Density of eigenvalues, log scale over six decades"
    return [Table([Column(), Column(align="left"), Column()], [row], "Spectrum", caption)]
