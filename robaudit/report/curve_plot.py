"""The curve as a picture: WCI beside the robust gaps, and the parts that WCI is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robaudit.report.curve import Curve, Number
from robaudit.report.differences import architectures_differ
from robaudit.report.palette import BLUE, VERMILION
from robaudit.report.text import plain

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

# By split: colour, marker, line.
_STYLES = {
    "test": (BLUE, "o", "-"),
    "train": (VERMILION, "s", "--"),
    "": ("#333333", "D", "-"),
}
_WIDTH, _PANEL = 3.5, 1.15  # inches: the column of a two-column page, and the height of a panel
_MOST_NAMES, _LONGEST_NAME = 16, 18


@dataclass(frozen=True)
class _Panel:
    label: str
    quantities: dict[str, str]  # by the split that the style says
    factor: float = 1


_PANELS = (
    _Panel("WCI", {"test": "wci_test", "train": "wci_train"}),
    _Panel("robust loss gap\n(nats)", {"": "gap_loss"}),
    _Panel("robust error gap\n(points)", {"": "gap_error"}, 100),
    _Panel("weights\n" r"$\sum_k\,\|W_k\|_F^2$", {"": "weights_squared"}),
    _Panel("trace\n" r"$\sum_k\,\mathrm{Tr}(H_k)$", {"test": "trace_test", "train": "trace_train"}),
)


def write_curve_plots(curve: Curve, folder: Path) -> list[Path]:
    """Write ``curve.svg`` and ``curve.png``, or nothing where no number is there to draw.

    Panels over one axis, from zero, so that heights compare as ratios: WCI, the gaps of robust loss
    and robust error (the WCI paper's Figure 1), squared weight norm and trace (its Figure 4). Bands
    are one standard error; a gap in the line is a number that was not measured, marked by a cross.
    """
    panels = [panel for panel in _PANELS if any(map(curve.has, panel.quantities.values()))]
    if not panels:
        return []
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paths = [folder / "curve.svg", folder / "curve.png"]
    # Letters stay letters in the SVG, to be searched and read aloud.
    with matplotlib.rc_context(
        {"font.size": 8, "svg.fonttype": "none", "svg.hashsalt": "robaudit"}
    ):
        figure = Figure(figsize=(_WIDTH, 0.75 + _PANEL * len(panels)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = list(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0])
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, curve, panel)
        figure.align_ylabels(axes)
        _places(axes[-1], curve)
        handles, labels = _legend(axes)
        figure.legend(
            handles, labels, loc="outside upper center", ncols=3 if len(labels) <= 3 else 2,
            frameon=False, columnspacing=1.2, handlelength=2.2,
        )  # fmt: skip
        for path in paths:
            figure.savefig(path, dpi=200, metadata={"Date": None} if path == paths[0] else None)
    return paths


def _legend(axes: list[Axes]) -> tuple[list[Artist], list[str]]:
    """Each kind of line once, and what the bands are."""
    from matplotlib.patches import Patch

    drawn = {str(line.get_label()): line for axis in axes for line in axis.get_lines()}
    named: dict[str, Artist] = {
        label: line for label, line in drawn.items() if not label.startswith("_")
    }
    named["± one s.e."] = Patch(color="#777777", alpha=0.3, linewidth=0)
    return list(named.values()), list(named)


def _draw(axis: Axes, curve: Curve, panel: _Panel) -> None:
    places = [point.place for point in curve.points]
    lost: set[float] = set()
    lowest = 0.0
    for split, quantity in panel.quantities.items():
        if not curve.has(quantity):
            continue
        column = curve.column(quantity)
        lost |= {at for at, found in zip(places, column, strict=True) if found is None}
        values, errors = _numbers(column, panel.factor)
        low = [value - error for value, error in zip(values, errors, strict=True)]
        high = [value + error for value, error in zip(values, errors, strict=True)]
        lowest = min([lowest, *(value for value in low if not math.isnan(value))])
        color, marker, line = _STYLES[split]
        connected = _connected(curve)
        axis.plot(
            places, values, linestyle=line if connected else "", color=color, marker=marker,
            markersize=3, linewidth=1, label=split or "_",
        )  # fmt: skip
        if connected:
            axis.fill_between(places, low, high, color=color, alpha=0.2, linewidth=0)
        for at, place in enumerate(places):
            if not math.isnan(values[at]) and not (connected and _reached(values, at)):
                axis.plot([place, place], [low[at], high[at]], color=color, linewidth=1)
    if lost:
        # On the axis, in its own coordinates, so that no value is meant.
        axis.plot(
            sorted(lost), [0.06] * len(lost), "x", color="#777777", markersize=4, clip_on=False,
            transform=axis.get_xaxis_transform(), label="not measured",
        )  # fmt: skip
    axis.set_ylim(bottom=1.05 * lowest if lowest < 0 else 0)
    if lowest < 0:
        axis.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    axis.set_ylabel(panel.label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.04)


def _numbers(column: list[Number | None], factor: float) -> tuple[list[float], list[float]]:
    """Values and standard errors; a gap is ``nan``, an unknown error draws no band."""
    values = [math.nan if found is None else factor * found.value for found in column]
    errors = [
        math.nan if found is None else factor * (found.standard_error or 0) for found in column
    ]
    return values, errors


def _connected(curve: Curve) -> bool:
    """A line says that one checkpoint became the next."""
    reports = [point.report for point in curve.points if point.report]
    return curve.axis.by != "order" and not architectures_differ(reports)


def _reached(values: list[float], at: int) -> bool:
    """Whether a band reaches the point: from a neighbour that is no gap."""
    beside = [values[i] for i in (at - 1, at + 1) if 0 <= i < len(values)]
    return not all(map(math.isnan, beside))


def _places(axis: Axes, curve: Curve) -> None:
    from matplotlib.ticker import MaxNLocator

    if curve.axis.by != "order":
        axis.set_xlabel(_text(curve.axis.name))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif len(curve.points) > _MOST_NAMES:
        axis.set_xlabel("place in the order given")
    else:
        names = [_text(point.name) for point in curve.points]
        shown = [n if len(n) <= _LONGEST_NAME else f"{n[: _LONGEST_NAME - 1]}…" for n in names]
        places = [point.place for point in curve.points]
        axis.set_xticks(places, shown, rotation=40, ha="right", rotation_mode="anchor")


def _text(text: str) -> str:
    """Foreign text as matplotlib shows it: without control characters, dollars as themselves."""
    return plain(text).replace("$", r"\$")
