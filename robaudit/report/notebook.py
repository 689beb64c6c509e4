"""Reports and results in a notebook: as HTML, as a data frame, as figures, and as a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from robaudit.errors import UsageError, did_you_mean
from robaudit.outcomes import read_outcomes
from robaudit.report.compare_tables import comparison_paper
from robaudit.report.curve import Curve, curve_tables
from robaudit.report.facts import short_threat
from robaudit.report.folder import PICTURES, fill_folder, report_folder
from robaudit.report.formats.html import html_table
from robaudit.report.landscape_folder import fill_landscape
from robaudit.report.landscape_npz import FILE_NAME as LANDSCAPE
from robaudit.report.landscape_npz import read_npz
from robaudit.report.naming import name_of
from robaudit.report.numbers import number, percent
from robaudit.report.pictures.accuracies import accuracies
from robaudit.report.pictures.classes import classes
from robaudit.report.pictures.flatness import flatness, sweep
from robaudit.report.pictures.landscape import landscape_pictures
from robaudit.report.report_tables import measurement_table
from robaudit.report.table import Cell, Column, Table, estimate, names, noted
from robaudit.report.text import plain
from robaudit.report.words import doubts, label, not_measured, warnings
from robaudit.schema import Measurement, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from robaudit.curvature import Spectrum, WeightCurvature

_MOST_LAYERS = 24
# All that a notebook does not have by itself; other classes of the tables are left alone.
_STYLE = (
    "<style>.robaudit .kr{text-align:right}.robaudit .k{text-align:left}"
    ".robaudit caption{text-align:left;font-weight:bold}"
    ".robaudit .spread{opacity:.75}.robaudit td{white-space:nowrap}</style>"
)
_NUMBERS = ("value", "low", "high", "level", "standard_error", "seconds")
_COLUMNS = (
    *("name", "label", "split", "status", "value", "low", "high", "level", "standard_error"),
    *("unit", "n", "seconds", "reason", "doubts"),
)
_PICTURES: dict[str, Callable[[Report], Figure | None]] = {
    **PICTURES,
    "accuracies": accuracies,
    "classes": classes,
    "flatness": flatness,
    "flatness-sweep": sweep,
}


def to_html(result: object) -> Markup:
    """A report, a comparison, a curve or a result of curvature as tables for a notebook.

    Foreign text is escaped. Nothing is loaded, and no script is run.

    Raises:
        TypeError: another kind of object.
    """
    kinds: dict[str, Callable[[Any], list[Table]]] = {
        "Report": _of_report,
        "Comparison": comparison_paper,
        "Curve": _of_curve,
        "WeightCurvature": _of_wci,
        "Spectrum": _of_spectrum,
    }
    of = next((kinds[one.__name__] for one in type(result).mro() if one.__name__ in kinds), None)
    if of is None:
        raise TypeError(f"a {type(result).__name__} has no tables")
    tables = Markup("").join(map(html_table, of(result)))
    # Every text in the tables was escaped where they were drawn.
    return Markup(f'<div class="robaudit">{_STYLE}{tables}</div>')  # noqa: S704


def _of_report(report: Report) -> list[Table]:
    """The measurements, and in one line each what keeps them from being taken at face value."""
    data = report.data
    found = [
        *(f"In doubt: {line}" for line in doubts(report)),
        *(f"Not measured: {line}" for line in not_measured(report)),
        *(f"Warning: {line}" for line in warnings(report)),
    ]
    said = f"{data.name} {data.split}, n = {data.n}, {short_threat(report.threat)}"
    table = measurement_table(report)
    return [replace(table, title=name_of(report.subject), caption=said, notes=found)]


def _of_curve(curve: Curve) -> list[Table]:
    return noted(curve_tables(curve))


def _of_wci(found: WeightCurvature) -> list[Table]:
    kept = sorted(found.layers, key=lambda one: one.contribution, reverse=True)[:_MOST_LAYERS]
    rows = [
        [
            Cell(layer.name),
            estimate(layer.frobenius),
            estimate(layer.trace, layer.standard_error),
            estimate(layer.contribution),
            Cell(percent(layer.share), value=layer.share),
        ]
        for layer in found.layers
        if layer in kept
    ]
    headings = (Column(name) for name in ("||W_k||_F", "Trace", "Contribution", "Share"))
    index = estimate(found.value, found.standard_error)
    said = f"{index.text} {index.spread}, bound {number(found.bound)}, bias {number(found.bias, 2)}"
    left = len(found.layers) - len(rows)
    notes = [f"{left} smaller layers are not listed."] if left else []
    notes += [] if found.note is None else [found.note]
    return [Table([names("Layer"), *headings], rows, "Weight-Curvature Index", said, notes)]


def _of_spectrum(found: Spectrum) -> list[Table]:
    ends = [
        *((f"{at + 1}. largest", value) for at, value in enumerate(found.largest)),
        ("smallest", found.smallest),
    ]
    within = (*found.residuals, found.smallest_residual)
    rows = [
        [Cell(name), Cell(number(value), value=value), Cell(number(residual, 2), value=residual)]
        for (name, value), residual in zip(ends, within, strict=True)
    ]
    # nan for a single probe
    error = found.trace_standard_error
    trace = estimate(found.trace, None if error != error else error)
    said = (
        f"{found.operator}, {found.dimension:,} parameters, {found.products} products, "
        f"trace {trace.text} {trace.spread}"
    )
    notes = [*([] if found.note is None else [found.note]), *found.notes]
    columns = [names("Eigenvalue"), Column("Value"), Column("Residual")]
    return [Table(columns, rows, "Spectrum", said.rstrip(), notes)]


def to_pandas(report: Report) -> DataFrame:
    """See :meth:`robaudit.schema.Report.to_pandas`."""
    try:
        import pandas
    except ImportError:
        raise UsageError(
            "data frames need pandas, which is not installed", "pip install 'robaudit[pandas]'"
        ) from None
    rows = [_row(m) for m in report.measurements]
    frame = pandas.DataFrame(rows, columns=[*_COLUMNS])
    frame = frame.astype({**dict.fromkeys(_NUMBERS, "float64"), "n": "Int64"})
    threat = report.threat
    frame.attrs = {
        "source": report.subject.source,
        "data": report.data.name,
        "norm": threat and threat.norm,
        "eps": threat and threat.eps,
    }
    return frame


def _row(m: Measurement) -> tuple[object, ...]:
    within = m.interval
    ends = (None, None, None) if within is None else (within.low, within.high, within.level)
    said = (plain(m.reason) if m.reason else None, "; ".join(map(plain, m.doubts)))
    return (
        *(plain(m.name), plain(label(m)), m.split, m.status, m.value, *ends, m.standard_error),
        *(m.unit, m.n, m.seconds, *said),
    )


def figure(report: Report, name: str) -> Figure:
    """See :meth:`robaudit.schema.Report.figure`."""
    drawn = _pictures(report)
    made = drawn[name]() if name in drawn else None
    if made is not None:
        return made
    there = [one for one, draw in drawn.items() if draw() is not None]
    listed = f"It has {', '.join(there)}." if there else "It has none."
    if name in _PICTURES:
        raise UsageError(f"the report has no picture {name!r}: nothing was measured for it", listed)
    raise UsageError(f"the report has no picture {name!r}{did_you_mean(name, there)}", listed)


def _pictures(report: Report) -> dict[str, Callable[[], Figure | None]]:
    drawn: dict[str, Callable[[], Figure | None]] = {
        name: partial(draw, report) for name, draw in _PICTURES.items()
    }
    folder = report._beside.folder
    if folder is not None and (file := folder / LANDSCAPE).is_file():
        drawn |= landscape_pictures(read_npz(file))
    return drawn


def save(report: Report, folder: Path) -> Path:
    """See :meth:`robaudit.schema.Report.save`."""
    beside = report._beside
    outcomes, gallery, landscape = beside.outcomes, beside.gallery, None
    if beside.folder is not None:  # read before the folder is replaced
        from robaudit.report.gallery import read_gallery

        outcomes = read_outcomes(beside.folder) or {}
        pictures, places = beside.folder / "gallery.npz", beside.folder / LANDSCAPE
        gallery = read_gallery(pictures) if pictures.is_file() else None
        landscape = read_npz(places) if places.is_file() else None
    with report_folder(folder) as draft:
        if landscape is not None:
            fill_landscape(draft, landscape)
        fill_folder(draft, report, outcomes, gallery)
    return folder
