"""Flatness of one report: the robust loss under weight changes, and its rise over their size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robaudit.report.details import extra, extra_number, number_list
from robaudit.report.pictures.drawing import line, logarithmic, new_figure, style
from robaudit.report.pictures.intervals import Whisker, intervals
from robaudit.report.pictures.palette import LINES
from robaudit.report.words import label
from robaudit.schema import Measurement, Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FLATNESS = (
    "flatness.average",
    "flatness.worst",
    "flatness.clean_average",
    "flatness.clean_worst",
)


def flatness(report: Report) -> Figure | None:
    """The robust loss of the original weights, under random changes and under the worst found."""
    rows: list[Whisker] = []
    for name in _FLATNESS[:2]:
        m = report.get(name)
        reference = extra_number(m, "reference") if m is not None and m.value is not None else None
        if m is None or m.value is None or reference is None:
            continue
        if not rows:
            rows.append(Whisker("original weights", reference, reference, reference))
        low, high = (m.interval.low, m.interval.high) if m.interval else (m.value, m.value)
        value, low, high = (reference + rise for rise in (m.value, low, high))
        xi = extra_number(m, "xi")
        within = "" if xi is None else f" within {100 * xi:.4g} % of each tensor's norm"
        kind = "worst change found" if name == "flatness.worst" else "random changes"
        single = number_list(extra(m, "perturbed")) or ()
        rows.append(Whisker(f"{kind}{within}", value, low, high, single))
    return intervals(rows, "robust loss, nats")


@style()
def sweep(report: Report) -> Figure | None:
    """The rise in loss over the relative size of the weight change, where several were measured."""
    found = {
        name: rows
        for name in _FLATNESS
        if (m := report.get(name)) is not None and (rows := sweep_points(m))
    }
    if not found:
        return None
    figure = new_figure(2.4)
    axis = figure.subplots()
    for (name, rows), look in zip(found.items(), LINES, strict=False):
        m = report.get(name)
        assert m is not None
        xi, value, low, high = zip(*rows, strict=True)
        line(axis, xi, value, (low, high), look, label(m))
    logarithmic(axis, "x")
    axis.set_xlabel("relative size xi of the weight change")
    axis.set_ylabel("rise in loss, nats (band: interval)")
    axis.legend()
    return figure


def sweep_points(m: Measurement) -> list[tuple[float, float, float, float]]:
    """Size, rise, and the ends of its interval, a row a size; empty where one was measured."""
    rows = m.details.get("sweep")
    points = []
    for row in rows if isinstance(rows, list) else []:
        pair = number_list([row.get("xi"), row.get("value")]) if isinstance(row, dict) else None
        if pair is None or pair[0] <= 0:
            return []
        low, high = number_list([row.get("low"), row.get("high")]) or (pair[1], pair[1])
        points.append((pair[0], pair[1], low, high))
    return points
