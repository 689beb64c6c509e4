"""Clean and robust accuracy of every class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robaudit.report.class_tables import name_of
from robaudit.report.details import class_rows
from robaudit.report.pictures.drawing import SMALL, new_figure, short, style
from robaudit.report.pictures.palette import BLUE, RULE, VERMILION
from robaudit.schema import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 30
_ROW, _REST = 0.19, 0.75  # inches
_LONGEST_NAME = 18


@style()
def classes(report: Report) -> Figure | None:
    """Clean and robust accuracy of each class with intervals, the worst class on top.

    ``None`` for fewer than two classes. Of many the :data:`MOST_CLASSES` worst are drawn.
    """
    rows = sorted(class_rows(report), key=lambda row: (row.robust, row.label))[:MOST_CLASSES]
    if len(rows) < 2:
        return None
    figure = new_figure(_REST + _ROW * len(rows))
    axis = figure.subplots()
    places = range(len(rows))
    axis.hlines(places, 0, 100, RULE, linewidth=0.6, zorder=0)
    series = (
        ("clean", BLUE, "s", -0.14, [(row.clean, row.clean_low, row.clean_high) for row in rows]),
        ("robust", VERMILION, "o", 0.14, [(row.robust, row.low, row.high) for row in rows]),
    )
    for name, colour, marker, aside, shares in series:
        at = [place + aside for place in places]
        value, low, high = (
            [100 * share for share in column] for column in zip(*shares, strict=True)
        )
        axis.hlines(at, low, high, colour, linewidth=1)
        axis.plot(
            value, at, marker, color=colour, ms=3, label=name, linestyle="none", clip_on=False
        )
    axis.set_yticks(places, [short(name_of(row), _LONGEST_NAME) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlim(0, 100.5)
    axis.tick_params(axis="y", length=0, labelsize=SMALL)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("accuracy, % (bars: intervals)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure
