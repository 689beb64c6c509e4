"""Accuracies: with their intervals, over the radius, and after each part of an attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from robaudit.report.details import robustness_curves
from robaudit.report.pictures.drawing import new_figure, style
from robaudit.report.pictures.intervals import Whisker, intervals
from robaudit.report.pictures.palette import BLUE, LINES, VERMILION
from robaudit.report.words import attack, label, ordered
from robaudit.schema import Measurement, Report
from robaudit.types import radius

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PERCENT = (0.0, 100.0)
_MOST_TICKS = 6


def accuracies(report: Report) -> Figure | None:
    """Every accuracy of the report with its interval, from 0 to 100 %."""
    rows = [
        accuracy_row(m, f"{label(m)} ({m.split})" if m.split != report.data.split else label(m))
        for m in ordered(report)
        if m.name.startswith("accuracy.")
    ]
    return accuracy_rows([row for row in rows if row is not None])


def accuracy_rows(rows: Sequence[Whisker]) -> Figure | None:
    """Rows of :func:`accuracy_row` on an axis from 0 to 100 %."""
    return intervals(rows, "accuracy, %", _PERCENT)


def accuracy_row(m: Measurement | None, name: str) -> Whisker | None:
    """An accuracy in per cent, or ``None`` where it was not measured or has no interval."""
    if m is None or m.value is None or m.interval is None:
        return None
    colour = BLUE if m.name == "accuracy.clean" else VERMILION
    value, low, high = (100 * end for end in (m.value, m.interval.low, m.interval.high))
    return Whisker(name, value, low, high, colour=colour)


def parts(m: Measurement) -> dict[str, float]:
    """What each part of an attack left standing, as a fraction, in the order of the parts."""
    left = m.details.get("attacks")
    if not isinstance(left, dict):
        return {}
    known = all(isinstance(one, int | float) and math.isfinite(one) for one in left.values())
    return {str(name): one for name, one in left.items()} if known else {}


def standing(m: Measurement) -> Figure | None:
    """:func:`parts`, a row each."""
    shares = {name: 100 * one for name, one in parts(m).items()}
    rows = [Whisker(name, one, one, one, colour=VERMILION) for name, one in shares.items()]
    return intervals(rows, "left standing, %", _PERCENT)


@style()
def radii(report: Report) -> Figure | None:
    """Accuracy over the radius with a band for its interval, one line an attack.

    ``None`` where one radius was attacked.
    """
    curves = {name: rows for name, rows in robustness_curves(report).items() if rows}
    if not curves:
        return None
    figure = new_figure(2.5)
    axis = figure.subplots()
    clean = report.get("accuracy.clean")
    for (name, rows), (colour, dash, marker) in zip(curves.items(), LINES * 2, strict=False):
        points = [(row.eps, row.value, row.low, row.high) for row in rows]
        if clean is not None and clean.value is not None and clean.interval is not None:
            points.insert(0, (0.0, clean.value, clean.interval.low, clean.interval.high))
        at, *shares = zip(*points, strict=True)
        value, low, high = ([100 * share for share in column] for column in shares)
        axis.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
        measurement = report.get(name)
        assert measurement is not None
        axis.plot(
            at,
            value,
            color=colour,
            linestyle=dash,
            marker=marker,
            markersize=3.5,
            linewidth=1.2,
            label=attack(measurement),
        )
    eps = sorted({row.eps for rows in curves.values() for row in rows})
    if len(eps) <= _MOST_TICKS:
        axis.set_xticks([0, *eps], ["0", *map(radius, eps)])
    axis.set_xlim(left=0)
    axis.set_ylim(0, 100)
    assert report.threat is not None
    axis.set_xlabel(f"radius eps, {report.threat.norm}")
    axis.set_ylabel("accuracy, % (band: interval)")
    axis.legend()
    return figure
