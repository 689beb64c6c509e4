"""One report for a terminal. Meaning never rests on colour; no foreign text is read as markup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from robaudit.report.details import (
    Density,
    LayerRow,
    SpreadRow,
    density,
    extra,
    extra_number,
    layer_rows,
    spread_rows,
)
from robaudit.report.details import trace_symbol as symbol_of
from robaudit.report.facts import threat_text
from robaudit.report.naming import name_of
from robaudit.report.numbers import aligned, number, percent, shown, shown_number
from robaudit.report.radii import curve_cells
from robaudit.report.text import plain
from robaudit.report.verdicts import verdicts
from robaudit.report.words import (
    DOUBTS_HEADING,
    architecture,
    doubts,
    evidence,
    group,
    has_splits,
    interval_heading,
    label,
    normalization,
    not_measured,
    ordered,
    warnings,
)
from robaudit.schema import Data, Measurement, Report

_BAR = 12
_BLOCKS = " ▁▂▃▄▅▆▇█"


def report_view(report: Report, max_layers: int = 24) -> RenderableType:
    """The whole report: header, measurements, layers, spectrum, doubts, warnings, verdicts.

    Args:
        report: what to show.
        max_layers: of a deeper network, only so many layers with the largest contributions are
            listed, and a line says what is left out.

    Raises:
        DataError: a layer table or density in it cannot be read.
    """
    parts: list[RenderableType] = [_header(report), _measurements(report)]
    parts += _missing(report)
    headings, cells = curve_cells(report)
    if cells:
        parts += [_heading("Accuracy within each radius, %"), _plain_table(headings, cells)]
    rows = layer_rows(report)
    if rows:
        parts += [_heading("Layers"), *_layers(report, rows, max_layers)]
    spreads = spread_rows(report)
    if spreads:
        parts += [_heading("Eigenvalues by layer"), _spreads(spreads, max_layers)]
    spectrum = density(report)
    if spectrum is not None:
        parts += [_heading("Spectrum"), _spectrum(spectrum)]
    for heading, lines in (
        (DOUBTS_HEADING, doubts(report)),
        ("Warnings", warnings(report)),
        ("What to make of it", verdicts(report)),
    ):
        if lines:
            parts += [_heading(heading), _bullets(lines)]
    return Group(*parts, _footer(report))


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _bullets(lines: Iterable[str]) -> Table:
    table = Table.grid(padding=(0, 1))
    for line in lines:
        table.add_row(Text(" -"), Text(line, overflow="fold"))
    return table


def _header(report: Report) -> RenderableType:
    subject, threat = report.subject, report.threat
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def row(name: str, text: str) -> None:
        table.add_row(Text(f" {name}"), Text(text, overflow="fold"))

    identity = f", sha256 {plain(subject.sha256)[:12]}" if subject.sha256 else ""
    row("Checkpoint", f"{plain(subject.source)} ({plain(subject.format)}{identity})")
    row("Architecture", architecture(subject))
    row("Normalisation", normalization(subject))
    if tried := evidence(subject):
        row("Tried on the data", tried)
    row("Data", _data(report.data))
    if report.train_data is not None:
        row("", _data(report.train_data))
    row("Threat model", f"{threat_text(threat)}, images in [0, 1]")
    title = Text(f"robaudit: {name_of(subject)}\n", style="bold", overflow="fold")
    return Group(title, table, Text())


def _data(data: Data) -> str:
    classes = f", {data.classes} classes" if data.classes else ""
    return (
        f"{plain(data.name)}, {data.n} {plain(data.split)} examples{classes} "
        f"(sha256 {plain(data.sha256)[:12]})"
    )


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", padding=(0, 0, 0, 1))


def _measurements(report: Report) -> Table:
    splits = has_splits(report)
    table = _table()
    table.add_column("Measurement", overflow="fold", min_width=16)
    table.add_column("Value", justify="right", no_wrap=True)
    table.add_column(interval_heading(report), no_wrap=True)
    table.add_column("Unit", no_wrap=True)
    if splits:
        table.add_column("Split", no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("Seconds", justify="right", no_wrap=True)
    rows = ordered(report)
    values = aligned([shown(m).value if m.status == "ok" else "" for m in rows])
    for place, (m, value) in enumerate(zip(rows, values, strict=True)):
        last = place + 1 == len(rows) or group(rows[place + 1]) != group(m)
        table.add_row(*_row(m, value, splits), end_section=last)
    return table


def _row(m: Measurement, value: str, splits: bool) -> list[Text]:
    if m.status == "ok":
        parts = shown(m)
        cells = [
            Text(value, style="bold"),
            Text(parts.spread),
            Text(plain(parts.unit), style="dim"),
        ]
    else:
        style = "bold red" if m.status == "failed" else "yellow"
        cells = [Text(m.status, style=style), Text("see below", style="dim"), Text()]
    split = "both" if m.split == "gap" else plain(m.split)
    return [
        Text(label(m), overflow="fold"),
        *cells,
        *([Text(split)] if splits else []),
        Text("" if m.n is None else str(m.n)),
        Text("" if m.seconds is None else f"{m.seconds:.1f}", style="dim"),
    ]


def _missing(report: Report) -> list[RenderableType]:
    lines = not_measured(report)
    return [_heading("Not measured"), _bullets(lines)] if lines else []


def _layers(report: Report, rows: list[LayerRow], most: int) -> list[RenderableType]:
    kept = sorted(rows, key=lambda row: row.contribution, reverse=True)[:most]
    table = _table()
    table.add_column("Layer", overflow="fold", min_width=12)
    table.add_column("||W_k||_F", justify="right", no_wrap=True)
    table.add_column(symbol_of(report), justify="right", no_wrap=True)
    table.add_column("± s.e.", justify="right", no_wrap=True)
    table.add_column("Contribution", justify="right", no_wrap=True)
    table.add_column("Share of WCI", no_wrap=True)
    listed = [row for row in rows if row in kept]
    traces = [shown_number(row.trace, row.standard_error) for row in listed]
    columns = [
        aligned([number(row.frobenius) for row in listed]),
        aligned([trace for trace, _ in traces]),
        aligned([error for _, error in traces]),
        aligned([number(row.contribution) for row in listed]),
    ]
    for row, norm, trace, error, contribution in zip(listed, *columns, strict=True):
        table.add_row(
            Text(plain(row.name), overflow="fold"),
            Text(norm),
            Text(trace),
            Text(error, style="dim"),
            Text(contribution, style="bold"),
            _share(row.share or 0),
        )
    parts: list[RenderableType] = [table]
    left = [row for row in rows if row not in kept]
    if left:
        rest = percent(sum(row.share or 0 for row in left))
        parts.append(Text(f" {len(left)} smaller layers are not listed; together {rest} of WCI."))
    measurement = report.get("wci")
    estimator = extra(measurement, "estimator") if measurement else None
    bias = extra_number(measurement, "bias") if measurement else None
    notes = []
    if isinstance(estimator, str):
        notes.append(f"traces by the {plain(estimator)} estimator")
    if bias is not None:
        notes.append(f"bias of WCI from the square roots {number(bias, 2)}")
    if notes:
        parts.append(Text(f" {'; '.join(notes)}", style="dim"))
    return parts


def _spreads(rows: list[SpreadRow], most: int) -> RenderableType:
    kept = sorted(rows, key=lambda row: row.deviation, reverse=True)[:most]
    listed = [row for row in rows if row in kept]
    table = _table()
    table.add_column("Layer", overflow="fold", min_width=12)
    for heading in ("Count", "Mean", "± s.e.", "Deviation", "± s.e."):
        table.add_column(heading, justify="right", no_wrap=True)
    means = [shown_number(row.mean, row.mean_standard_error) for row in listed]
    deviations = [shown_number(row.deviation, row.standard_error) for row in listed]
    columns = [
        aligned(list(cells)) for pair in (means, deviations) for cells in zip(*pair, strict=True)
    ]
    for row, *cells in zip(listed, *columns, strict=True):
        table.add_row(
            Text(plain(row.name), overflow="fold"), f"{row.dimension:,}", *map(Text, cells)
        )
    left = len(rows) - len(listed)
    if not left:
        return table
    return Group(table, Text(f" {left} layers of smaller deviation are not listed."))


def _plain_table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    table = _table()
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def _share(share: float) -> Text:
    eighths = round(8 * _BAR * min(1.0, max(0.0, share)))
    bar = "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]
    return Text.assemble(f"{percent(share):>7} ", (bar, "cyan"))


def _spectrum(spectrum: Density, width: int = 48) -> RenderableType:
    low, high = min(spectrum.grid), max(spectrum.grid)
    bins = [0.0] * width
    for at, mass in zip(spectrum.grid, spectrum.density, strict=True):
        place = int((at - low) / (high - low) * width) if high > low else 0
        bins[min(place, width - 1)] = max(bins[min(place, width - 1)], mass)
    peak = max(bins)
    line = "".join(_block(mass / peak if peak > 0 else 0) for mass in bins)
    text = Text.assemble(f" {number(low, 3)} ", (line, "cyan"), f" {number(high, 3)}", no_wrap=True)
    return Group(text, Text(" density of eigenvalues, log scale over six decades", style="dim"))


def _block(mass: float) -> str:
    height = 0.0 if mass <= 0 else max(0.0, 1 + math.log10(mass) / 6)
    return _BLOCKS[math.ceil(height * (len(_BLOCKS) - 1))]


def _footer(report: Report) -> RenderableType:
    p = report.provenance
    batch = f", batches of {p.batch_size}" if p.batch_size else ""
    return Padding(
        Text(
            f"± is one standard error. {plain(p.started)}, {p.seconds:.1f} s on {plain(p.device)}, "
            f"{plain(p.precision)}{batch}, seed {p.seed}, robaudit {plain(report.robaudit)}.",
            style="dim",
            overflow="fold",
        ),
        (1, 0, 0, 1),
    )
