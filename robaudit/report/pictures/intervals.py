"""Values with their intervals on one axis, a row each, with the name above its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from robaudit.report.pictures.drawing import SMALL, new_figure, short, style
from robaudit.report.pictures.palette import BLUE, INK, RULE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW, _AXIS = 0.3, 0.55  # inches
MOST_ROWS = 40
LONGEST_NAME = 57


@dataclass(frozen=True)
class Whisker:
    """One row: a value, its interval, and the single outcomes that it summarises.

    ``low`` and ``high`` equal ``value`` where there is no interval.
    """

    name: str
    value: float
    low: float
    high: float
    single: Sequence[float] = ()
    colour: str = BLUE

    def against(self, limit: float) -> Whisker:
        """The row as distances from ``limit``, scaled so that the farthest end is at ±1."""
        scale = max(abs(end - limit) for end in (self.value, self.low, self.high)) or 1.0
        value, low, high = ((end - limit) / scale for end in (self.value, self.low, self.high))
        return Whisker(self.name, value, low, high, colour=self.colour)


@style()
def intervals(
    rows: Sequence[Whisker],
    label: str,
    ends: tuple[float, float] | None = None,
    limit: float | None = None,
    zero: bool = False,
) -> Figure | None:
    """A mark for each value, a bar for its interval, rings for single outcomes.

    Args:
        rows: from top to bottom; those after the first :data:`MOST_ROWS` are not drawn.
        label: of the axis.
        ends: of the axis; ``None`` for as wide as the rows need.
        limit: where to draw a vertical line. The axis then has no numbers, as each row has its
            own scale: see :meth:`Whisker.against`.
        zero: draw a vertical line at zero; the axis keeps its numbers.
    """
    if not rows:
        return None
    shown = rows[:MOST_ROWS]
    figure = new_figure(_AXIS + _ROW * len(shown))
    axis = figure.subplots()
    places = range(len(shown))
    lows, highs = [row.low for row in shown], [row.high for row in shown]
    colours = [row.colour for row in shown]
    axis.hlines(places, 0, 1, RULE, linewidth=0.6, zorder=0, transform=axis.get_yaxis_transform())
    if limit is not None:
        axis.axvline(limit, color=INK, linewidth=1)
        axis.set_xticks([])
    if zero:
        axis.axvline(0, color=INK, linewidth=1)
    wide = [at for at in places if highs[at] > lows[at]]
    axis.hlines(
        wide, [lows[at] for at in wide], [highs[at] for at in wide], [colours[at] for at in wide]
    )
    for at, row in enumerate(shown):
        # Marks at the ends of the axis are drawn whole.
        look: dict[str, Any] = {"color": row.colour, "clip_on": False}
        if row.single:
            axis.plot(row.single, [at] * len(row.single), "o", fillstyle="none", ms=3, **look)
        if row.high > row.low:
            axis.plot([row.low, row.high], [at, at], "|", ms=5, **look)
        axis.plot([row.value], [at], "o", ms=4, **look)
        axis.text(
            0,
            at - 0.2,
            short(row.name, LONGEST_NAME),
            fontsize=SMALL,
            va="bottom",
            transform=axis.get_yaxis_transform(),
        )
    axis.set_ylim(len(shown) - 0.5, -0.9)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_xlabel(label)
    if ends is not None:
        axis.set_xlim(*ends)
    return figure
