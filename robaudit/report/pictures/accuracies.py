"""Accuracies: with their intervals, over the radius, and after each part of an attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from robaudit.measures import find
from robaudit.report.details import number_list, robustness_curves
from robaudit.report.numbers import percent, shown
from robaudit.report.pictures.drawing import line, new_figure, short, style
from robaudit.report.pictures.intervals import LONGEST_NAME, Whisker, intervals
from robaudit.report.pictures.palette import BLUE, GREEN, LINES, VERMILION
from robaudit.report.words import attack, label, ordered
from robaudit.schema import Measurement, Report
from robaudit.types import radius

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PERCENT = (0.0, 100.0)
_MOST_TICKS = 6


def accuracies(report: Report) -> Figure | None:
    """Every accuracy of the report with its interval, from 0 to 100 %."""
    found = [m for m in ordered(report) if m.name.startswith("accuracy.")]
    splits = [f" ({m.split})" if m.split != report.data.split else "" for m in found]
    rows = [accuracy_row(m, label(m), split) for m, split in zip(found, splits, strict=True)]
    return accuracy_rows([row for row in rows if row is not None])


def accuracy_rows(rows: Sequence[Whisker]) -> Figure | None:
    """Rows of :func:`accuracy_row` on an axis from 0 to 100 %."""
    return intervals(rows, "accuracy, %", _PERCENT)


def accuracy_row(m: Measurement | None, name: str, split: str = "") -> Whisker | None:
    """An accuracy in per cent, named with its numbers; ``None`` without a value or an interval.

    Args:
        split: stands after the name, and is not cut off where that is long.
    """
    if m is None or m.value is None or m.interval is None:
        return None
    colour = {"clean": BLUE, "proof": GREEN}.get(find(m.name).basis, VERMILION)
    value, low, high = (100 * end for end in (m.value, m.interval.low, m.interval.high))
    tail = f"{split}: {shown(m)}"
    bare = f"{split}: {percent(m.value)}"
    if len(name) + len(bare) <= LONGEST_NAME < len(name) + len(tail):
        tail = bare  # the bar shows the interval
    return Whisker(short(name, LONGEST_NAME - len(tail)) + tail, value, low, high, colour=colour)


def parts(m: Measurement) -> dict[str, float]:
    """What each part of an attack left standing, as a fraction, in the order of the parts."""
    left = m.details.get("attacks")
    if not isinstance(left, dict):
        return {}
    known = all(isinstance(one, int | float) and math.isfinite(one) for one in left.values())
    return {str(name): one for name, one in left.items()} if known else {}


def standing(m: Measurement) -> Figure | None:
    """:func:`parts`, a row each, with the passes over an image that it cost."""
    passes = m.details.get("passes")
    costs = passes if isinstance(passes, dict) else {}
    rows = []
    for name, share in parts(m).items():
        cost = number_list(costs.get(name)) or []
        said = [percent(share)]
        said += [f"{n:,.0f} {way}" for n, way in zip(cost, ("forwards", "backwards"), strict=False)]
        value = 100 * share
        rows.append(Whisker(f"{name}: {', '.join(said)}", value, value, value, colour=VERMILION))
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
    for (name, rows), look in zip(curves.items(), LINES * 2, strict=False):
        points = [(row.eps, row.value, row.low, row.high) for row in rows]
        if clean is not None and clean.value is not None and clean.interval is not None:
            points.insert(0, (0.0, clean.value, clean.interval.low, clean.interval.high))
        at, *shares = zip(*points, strict=True)
        value, low, high = ([100 * share for share in column] for column in shares)
        measurement = report.get(name)
        assert measurement is not None
        line(axis, at, value, (low, high), look, attack(measurement))
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
