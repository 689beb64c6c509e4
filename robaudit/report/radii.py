"""Accuracies over radii: as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

from robaudit.report.details import robustness_curves
from robaudit.report.naming import name_of
from robaudit.report.palette import LINES
from robaudit.report.text import plain
from robaudit.report.words import attack
from robaudit.schema import Measurement, Report
from robaudit.types import radius


def curve_cells(report: Report) -> tuple[list[str], list[list[str]]]:
    """Headings and lines of the table, a line a radius; no lines where one radius was attacked."""
    curves = robustness_curves(report)
    if not curves:
        return [], []
    names = [attack(_of(report, name)) for name in curves]
    headings = ["eps", *(cell for name in names for cell in (name, "interval"))]
    lines = []
    clean = report.get("accuracy.clean")
    if clean is not None and clean.value is not None and clean.interval is not None:
        own = [f"{100 * clean.value:.1f}", _between(clean.interval.low, clean.interval.high)]
        lines.append(["0", *own * len(curves)])
    for rows in zip(*curves.values(), strict=True):
        cells = [(f"{100 * row.value:.1f}", _between(row.low, row.high)) for row in rows]
        lines.append([radius(rows[0].eps), *(cell for pair in cells for cell in pair)])
    return headings, lines


def write_radii(report: Report, folder: Path) -> list[Path]:
    """Write ``robustness.svg`` and ``robustness.png``, or nothing where one radius was attacked."""
    curves = robustness_curves(report)
    if not curves:
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
    clean = report.get("accuracy.clean")
    for (name, rows), (colour, dash, marker) in zip(curves.items(), LINES * 2, strict=False):
        points = [(row.eps, row.value, row.low, row.high) for row in rows]
        if clean is not None and clean.value is not None and clean.interval is not None:
            points.insert(0, (0.0, clean.value, clean.interval.low, clean.interval.high))
        eps, value, low, high = zip(*points, strict=True)
        percent = [[100 * number for number in column] for column in (value, low, high)]
        axis.fill_between(eps, percent[1], percent[2], color=colour, alpha=0.18, linewidth=0)
        axis.plot(
            eps, percent[0], color=colour, linestyle=dash, marker=marker, markersize=4,
            linewidth=1.3, label=attack(_of(report, name)),
        )  # fmt: skip
    axis.set_xlim(left=0)
    axis.set_ylim(0, 100)
    assert report.threat is not None
    axis.set_xlabel(f"radius eps, {report.threat.norm}", fontsize=9)
    axis.set_ylabel("accuracy, % (band: interval)", fontsize=9)
    axis.set_title(plain(name_of(report.subject)).replace("$", r"\$"), fontsize=9)
    axis.legend(fontsize=8, frameon=False)
    paths = [folder / "robustness.svg", folder / "robustness.png"]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths


def _of(report: Report, name: str) -> Measurement:
    measurement = report.get(name)
    assert measurement is not None
    return measurement


def _between(low: float, high: float) -> str:
    return f"{100 * low:.1f}-{100 * high:.1f}"
