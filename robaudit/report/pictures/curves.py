"""Several checkpoints: measures over the course of a run, and robust loss against flatness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from robaudit.report.curve_axis import shown_place
from robaudit.report.pictures.drawing import (
    SMALL,
    error_band,
    legend_above,
    line,
    new_figure,
    short,
    style,
)
from robaudit.report.pictures.palette import LINES, RULE, SOFT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from robaudit.report.curve import Curve

_PANEL = 1.15  # inches
_MOST_NAMES, _LONGEST_NAME = 16, 18
_SINGLE = 6  # the look in LINES of a quantity that is alone in its panel


@dataclass(frozen=True)
class Panel:
    """One vertical axis.

    Attributes:
        label: of the axis.
        lines: for each quantity of the curve its name in the legend (``""`` for none) and its
            place in :data:`LINES`.
        factor: what values are multiplied by.
    """

    label: str
    lines: dict[str, tuple[str, int]]
    factor: float = 1


def _by_split(quantity: str) -> dict[str, tuple[str, int]]:
    return {f"{quantity}_test": ("test", 0), f"{quantity}_train": ("train", 1)}


ACCURACY = Panel("PGD accuracy\n(%)", _by_split("accuracy_pgd"), 100)
WCI = (
    Panel("WCI", _by_split("wci")),
    Panel("robust loss gap\n(nats)", {"gap_loss": ("", _SINGLE)}),
    Panel("robust error gap\n(points)", {"gap_error": ("", _SINGLE)}, 100),
    Panel("weights\nΣ ‖W_k‖_F²", {"weights_squared": ("", _SINGLE)}),
    Panel("trace\nΣ Tr(H_k)", _by_split("trace")),
)
FLATNESS = (
    Panel("robust loss\n(nats)", {"loss_robust": ("", _SINGLE)}),
    Panel("average\nflatness (nats)", {"flatness_average": ("", 0)}),
    Panel("worst-case\nflatness (nats)", {"flatness_worst": ("", 1)}),
    Panel("largest\neigenvalue", {"hessian_largest": ("", 2)}),
)
_AGAINST = {"flatness_average": "average flatness", "flatness_worst": "worst-case flatness"}


@style()
def course(curve: Curve, panels: tuple[Panel, ...]) -> Figure | None:
    """The panels that have numbers, above each other, over one axis of checkpoints.

    Vertical axes begin at zero, so that heights compare as ratios. Bands are one standard error; a
    gap in a line is a number that was not measured, marked by a cross. Lines join checkpoints of
    one training run.

    Source: :data:`WCI` after Xu & Zhang, arXiv 2410.07719v1, Figures 1 and 4; :data:`FLATNESS`
    after Stutz, Hein & Schiele, ICCV 2021, Figure 6.
    """
    panels = tuple(panel for panel in panels if any(map(curve.has, panel.lines)))
    if not panels:
        return None
    figure = new_figure(0.75 + _PANEL * len(panels))
    axes: list[Axes] = list(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0])
    for axis, panel in zip(axes, panels, strict=True):
        _draw(axis, curve, panel)
    figure.align_ylabels(axes)
    _label_places(axes[-1], curve)
    drawn = {str(one.get_label()): one for axis in axes for one in axis.get_lines()}
    named = {label: one for label, one in drawn.items() if not label.startswith("_")}
    legend_above(figure, named | error_band())
    return figure


def _draw(axis: Axes, curve: Curve, panel: Panel) -> None:
    import numpy as np

    places = np.array([point.place for point in curve.points])
    lost = np.zeros(len(places), bool)
    lowest = 0.0
    for quantity, (name, look) in panel.lines.items():
        if not curve.has(quantity):
            continue
        column = [(n.value, n.standard_error or 0) if n else None for n in curve.column(quantity)]
        values, errors = panel.factor * np.array([pair or (np.nan, np.nan) for pair in column]).T
        low, high = values - errors, values + errors
        lowest = min(lowest, float(np.nanmin(low)))
        gaps = np.isnan(values)
        lost |= gaps
        colour, dash, marker = LINES[look]
        band = (low, high) if curve.connected else None
        dash = dash if curve.connected else ""
        line(axis, places, values, band, (colour, dash, marker), name or None)
        # A band shows no error of a point that has a gap on both sides.
        alone = ~gaps
        if curve.connected:
            alone &= np.append(gaps[1:], True) & np.append(True, gaps[:-1])
        axis.vlines(places[alone], low[alone], high[alone], colour)
    if lost.any():
        # In the axis' own coordinates: the height of a cross stands for no value.
        axis.plot(
            places[lost],
            np.full(lost.sum(), 0.06),
            "x",
            color=SOFT,
            markersize=4,
            clip_on=False,
            transform=axis.get_xaxis_transform(),
            label="not measured",
        )
    axis.set_ylim(bottom=1.05 * lowest if lowest < 0 else 0)
    if lowest < 0:
        axis.axhline(0, color=SOFT, linewidth=0.6, zorder=0)
    axis.set_ylabel(panel.label)
    axis.margins(x=0.04)


def _label_places(axis: Axes, curve: Curve) -> None:
    from matplotlib.ticker import MaxNLocator

    if curve.axis.by != "order":
        axis.set_xlabel(short(curve.axis.name, _LONGEST_NAME))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif len(curve.points) > _MOST_NAMES:
        axis.set_xlabel("place in the order given")
    else:
        places = [point.place for point in curve.points]
        names = [short(point.name, _LONGEST_NAME) for point in curve.points]
        axis.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")


@style()
def loss_against_flatness(curve: Curve) -> Figure | None:
    """The robust loss against average and worst-case flatness, one point a checkpoint.

    Bars are one standard error. Along a training run a line joins the points and they darken;
    where points are close, some have no name.

    Source: Stutz, Hein & Schiele, ICCV 2021, Figures 1 and 8.
    """
    panels = [
        key
        for key in _AGAINST
        if sum(p.numbers.keys() >= {key, "loss_robust"} for p in curve.points) > 1
    ]
    if not panels:
        return None
    figure = new_figure(2.6 * len(panels))
    for axis, key in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        _draw_against(axis, curve, key)
    brackets = "; in brackets 95 % bootstrap intervals over the models"
    known = any(found.pearson.interval for found in curve.correlations.values())
    figure.supxlabel(
        f"bars: ± one standard error{brackets if known else ''}", fontsize=6, color=SOFT
    )
    return figure


def _draw_against(axis: Axes, curve: Curve, key: str) -> None:
    import matplotlib

    from robaudit.report.flatness_curve import correlation_words  # which needs scipy

    there = [p for p in curve.points if p.numbers.keys() >= {key, "loss_robust"}]
    pairs = [(p.numbers[key], p.numbers["loss_robust"]) for p in there]
    values = [(x.value, y.value) for x, y in pairs]
    if curve.connected:
        axis.plot(*zip(*values, strict=True), color=RULE, linewidth=0.8, zorder=0)
    named = _far_apart(values)
    for at, (point, (x, y)) in enumerate(zip(there, pairs, strict=True)):
        shade = 0.85 - 0.75 * at / max(len(there) - 1, 1) if curve.connected else 0.3
        axis.errorbar(
            x.value,
            y.value,
            xerr=x.standard_error,
            yerr=y.standard_error,
            color=matplotlib.colormaps["viridis"](shade),
            marker="o",
            markersize=4,
            elinewidth=0.6,
            linestyle="",
        )
        if at in named:
            name = _place_name(curve, point.place, point.name)
            axis.annotate(name, values[at], xytext=(4, 3), textcoords="offset points", fontsize=6.5)
    if key in curve.correlations:
        axis.set_title("\n".join(correlation_words(curve.correlations[key])), fontsize=SMALL)
    axis.set_xlabel(f"{_AGAINST[key]} (nats)")
    axis.set_ylabel("robust loss (nats)")
    axis.margins(0.12)


def _far_apart(points: list[tuple[float, float]]) -> set[int]:
    """Which points can be named: first and last, then those far enough from all that are."""
    spans = [max(column) - min(column) or 1.0 for column in zip(*points, strict=True)]
    order = [0, len(points) - 1, *range(1, len(points) - 1)]
    kept: list[int] = []
    for at in order:
        near = (
            abs(points[at][0] - points[other][0]) < 0.12 * spans[0]
            and abs(points[at][1] - points[other][1]) < 0.06 * spans[1]
            for other in kept
        )
        if not any(near):
            kept.append(at)
    return set(kept)


def _place_name(curve: Curve, place: float, name: str) -> str:
    if curve.axis.by == "order":
        return short(name, _LONGEST_NAME)
    first = place == curve.points[0].place
    return f"{short(curve.axis.name, 12)} {shown_place(place)}" if first else shown_place(place)
