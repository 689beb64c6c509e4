"""Accuracy under each corruption at each severity, as a heat map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from robaudit.report.details import corruption_rows
from robaudit.report.pictures.drawing import SMALL, new_figure, short, style
from robaudit.schema import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MAP: Final = "cividis"  # the same to colour-blind readers, and in print
_ROW, _AROUND = 0.17, 0.75  # inches
# From here up the map is light, so that the numbers on it are dark.
_LIGHT: Final = 0.55
_LONGEST_NAME: Final = 24


@style()
def corruptions(report: Report) -> Figure | None:
    """A row a corruption, a column a severity, and the mean over them; from 0 to 100 %.

    ``None`` where corruptions were not measured.
    """
    rows = corruption_rows(report)
    if not rows:
        return None
    figure = new_figure(_AROUND + _ROW * len(rows))
    axis = figure.subplots()
    levels = [one.severity for one in rows[0].severities]
    values = [[one.accuracy for one in row.severities] + [row.accuracy] for row in rows]
    # The means stand apart from the severities that they are of.
    edges = [*range(len(levels) + 1)]
    mesh = axis.pcolormesh(
        edges,
        range(len(rows) + 1),
        [[100 * one for one in row[:-1]] for row in values],
        cmap=_MAP,
        vmin=0,
        vmax=100,
    )
    means = [len(levels) + 0.2, len(levels) + 1.2]
    axis.pcolormesh(
        means,
        range(len(rows) + 1),
        [[100 * row[-1]] for row in values],
        cmap=_MAP,
        vmin=0,
        vmax=100,
    )
    centres = [edge + 0.5 for edge in edges[:-1]] + [sum(means) / 2]
    for at, row in enumerate(values):
        for centre, one in zip(centres, row, strict=True):
            axis.text(
                centre,
                at + 0.5,
                f"{100 * one:.1f}",
                ha="center",
                va="center",
                fontsize=SMALL - 1,
                color="#000000" if one > _LIGHT else "#ffffff",
            )
    axis.set_xticks(centres, [*map(str, levels), "mean"])
    axis.set_yticks(
        [at + 0.5 for at in range(len(rows))],
        [short(row.name.replace("_", " "), _LONGEST_NAME) for row in rows],
    )
    axis.invert_yaxis()
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.set_xlabel("severity")
    bar = figure.colorbar(mesh, ax=axis, fraction=0.05, pad=0.02)
    bar.set_label("accuracy, %")
    bar.outline.set_visible(False)
    return figure
