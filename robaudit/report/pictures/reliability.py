"""Reliability diagram: accuracy over confidence, on clean images and adversarial examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robaudit.report.details import calibration_bins
from robaudit.report.numbers import shown
from robaudit.report.pictures.drawing import new_figure, style
from robaudit.report.pictures.palette import LINES, SOFT
from robaudit.schema import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {"calibration.ece": "clean", "calibration.adversarial_ece": "adversarial"}
_PERCENT = (-2.0, 102.0)  # marks at the ends are drawn whole


@style()
def reliability(report: Report) -> Figure | None:
    """A point for each bin of a calibration error, with the interval of its accuracy.

    Source: Niculescu-Mizil & Caruana, "Predicting good probabilities with supervised learning",
    ICML 2005.
    """
    found = calibration_bins(report)
    if not found:
        return None
    figure = new_figure(3.2)
    axis = figure.subplots()
    axis.plot([0, 100], [0, 100], color=SOFT, linewidth=0.8, zorder=0, label="calibrated")
    for (name, bins), (colour, dash, marker) in zip(found.items(), LINES, strict=False):
        m = report.get(name)
        assert m is not None
        at = [100 * one.confidence for one in bins]
        axis.vlines(
            at, [100 * b.low for b in bins], [100 * b.high for b in bins], colour, alpha=0.5
        )
        label = _NAMES[name] if m.value is None else f"{_NAMES[name]}, error {shown(m)}"
        accuracy = [100 * one.correct / one.n for one in bins]
        axis.plot(
            at,
            accuracy,
            color=colour,
            linestyle=dash,
            marker=marker,
            label=label,
            clip_on=False,
        )
    axis.set_xlim(*_PERCENT)
    axis.set_ylim(*_PERCENT)
    axis.set_xlabel("confidence, %")
    axis.set_ylabel("accuracy, % (bar: interval)")
    figure.legend(loc="outside lower center", ncols=1)  # a file has its title above
    return figure
