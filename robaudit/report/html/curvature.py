"""Layers, spectrum and flatness as tables and pictures."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from robaudit.report.details import (
    density,
    extra,
    extra_number,
    layer_rows,
    spread_rows,
    trace_symbol,
)
from robaudit.report.html.charts import Point, Series, Strip, bar, lines, spectrum, strips
from robaudit.report.html.table import Cell, Table, table
from robaudit.report.numbers import number, percent, shown_number
from robaudit.report.words import has_splits, label
from robaudit.schema import Measurement, Report

_FLATNESS = (
    "flatness.average", "flatness.worst", "flatness.clean_average", "flatness.clean_worst"
)  # fmt: skip


def layer_tables(report: Report) -> list[Table]:
    """The layers of WCI with their shares, a table a split."""
    tables = []
    for split in dict.fromkeys((report.data.split, "test", "train")):
        rows = layer_rows(report, split)
        if not rows:
            continue
        widest = max(row.share or 0 for row in rows) or 1.0
        cells = []
        for row in rows:
            share = row.share or 0
            trace, error = shown_number(row.trace, row.standard_error)
            cells.append(
                (
                    row.name,
                    Cell(number(row.frobenius), row.frobenius),
                    Cell(f"{trace} ± {error}" if error else trace, row.trace),
                    Cell(number(row.contribution), row.contribution),
                    Cell(percent(share), share),
                    Cell(bar(share / widest), share),
                )
            )
        symbol = trace_symbol(report, split)
        headings = ("Layer", "||W_k||_F", f"{symbol} ± s.e.", "Contribution", "Share of WCI", "")
        on = f" on the {split} examples" if has_splits(report) else ""
        tables.append(table(f"Layers of WCI{on}", headings, cells, " rrrrw", sortable=True))
    return tables


def spread_table(report: Report) -> Table | None:
    """How each layer's eigenvalues lie around their mean."""
    rows = [
        (
            row.name,
            Cell(f"{row.dimension:,}", row.dimension),
            Cell(" ± ".join(shown_number(row.mean, row.mean_standard_error)), row.mean),
            Cell(" ± ".join(shown_number(row.deviation, row.standard_error)), row.deviation),
        )
        for row in spread_rows(report)
    ]
    headings = ("Layer", "Count", "Mean ± s.e.", "Deviation ± s.e.")
    return table("Eigenvalues by layer", headings, rows, " rrr", sortable=True) if rows else None


def spectrum_picture(report: Report) -> Markup | None:
    """The Hessian's spectral density and its extreme eigenvalues."""
    found, trace = density(report), report.get("hessian.trace")
    if found is None or trace is None:
        return None
    errors = _numbers(trace.details["density"].get("standard_error"))
    ends = (report.get("hessian.smallest"), report.get("hessian.largest"))
    extremes = [m.value for m in ends if m is not None and m.value is not None]
    known = errors if errors is not None and len(errors) == len(found.grid) else None
    return spectrum(
        "Spectral density of the Hessian of the robust loss", found.grid, found.density, known,
        extremes,
    )  # fmt: skip


def eigenvalues(report: Report) -> Table | None:
    """The largest eigenvalues with their residuals."""
    largest = report.get("hessian.largest")
    values = _numbers(largest.details.get("eigenvalues")) if largest else None
    if largest is None or not values:
        return None
    residuals = _numbers(largest.details.get("residuals")) or []
    rows = [
        (str(at + 1), number(value), number(residuals[at], 2) if at < len(residuals) else "")
        for at, value in enumerate(values)
    ]
    return table("Largest eigenvalues", ("", "Eigenvalue", "Residual"), rows, "rrr")


def flatness_picture(report: Report) -> Markup | None:
    """The robust loss as it is, after random weight changes, and after the worst one found."""
    rows: list[Strip] = []
    for name in _FLATNESS[:2]:
        m = report.get(name)
        reference = extra_number(m, "reference") if m is not None and m.value is not None else None
        if m is None or m.value is None or reference is None:
            continue
        if not rows:
            rows.append(Strip("weights as they are", reference, reference, reference))
        after = reference + m.value
        low, high = (m.interval.low, m.interval.high) if m.interval else (m.value, m.value)
        xi = extra_number(m, "xi")
        within = "" if xi is None else f" within {100 * xi:.4g} % of each tensor's norm"
        kind = "worst change found" if name == "flatness.worst" else "random changes"
        single = _numbers(extra(m, "perturbed")) or []
        rows.append(Strip(f"{kind}{within}", after, reference + low, reference + high, single))
    if not rows:
        return None
    return strips("Robust loss before and after weight changes", rows, "robust loss, nats")


def sweep_picture(report: Report) -> Markup | None:
    """The rise in loss over the size of the weight change, where several were tried."""
    series = [
        Series(label(m), points)
        for name in _FLATNESS
        if (m := report.get(name)) is not None and (points := _sweep(m))
    ]
    if not series:
        return None
    return lines(
        "Flatness over the size of the weight change", series,
        "relative size xi of the weight change", "rise in loss, nats", log_x=True,
    )  # fmt: skip


def _sweep(m: Measurement) -> list[Point]:
    rows = m.details.get("sweep")
    points = []
    for row in rows if isinstance(rows, list) else []:
        pair = _numbers([row.get("xi"), row.get("value")]) if isinstance(row, dict) else None
        if pair is None or pair[0] <= 0:
            return []
        low, high = _numbers([row.get("low"), row.get("high")]) or (pair[1], pair[1])
        points.append(Point(pair[0], pair[1], low, high))
    return points


def _numbers(values: Any) -> list[float] | None:
    """A list of numbers as it stands in ``details``, else ``None``."""
    if not isinstance(values, list):
        return None
    known = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    return [float(one) for one in values] if known else None
