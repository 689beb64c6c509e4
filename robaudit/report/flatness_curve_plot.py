"""Flatness over checkpoints as pictures: its course, and the robust loss against it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from robaudit.report.curve import Curve
from robaudit.report.curve_axis import shown_place
from robaudit.report.flatness_curve import correlation_words
from robaudit.report.palette import BLACK, BLUE, GREEN, VERMILION
from robaudit.report.text import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _PANEL = 3.5, 1.15  # inches: the column of a two-column page, and the height of a panel
_MOST_NAMES, _LONGEST_NAME = 16, 18
_PANELS = {
    "loss_robust": ("robust loss\n(nats)", BLACK, "o"),
    "flatness_average": ("average\nflatness (nats)", BLUE, "s"),
    "flatness_worst": ("worst-case\nflatness (nats)", VERMILION, "^"),
    "hessian_largest": ("largest\neigenvalue", GREEN, "D"),
}
_AGAINST = {"flatness_average": "average flatness", "flatness_worst": "worst-case flatness"}


def write_flatness_plots(curve: Curve, folder: Path) -> list[Path]:
    """Write ``flatness.svg`` and ``.png``, the course over the checkpoints, and
    ``flatness-loss.svg`` and ``.png``, the robust loss against flatness, as far as measured.

    Bars are one standard error. Lines join checkpoints of which one became the next; on the second
    picture they darken along the run.

    Source: the first after Stutz, Hein & Schiele, ICCV 2021, Fig. 6, the second Figs. 1 and 8.
    """
    import matplotlib

    # Letters stay letters in the SVG, to be searched and read aloud.
    style = {"font.size": 8, "svg.fonttype": "none", "svg.hashsalt": "robaudit"}
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        return [*_course(curve, folder), *_against(curve, folder)]


def _course(curve: Curve, folder: Path) -> list[Path]:
    panels = [key for key in _PANELS if curve.has(key)]
    if not panels:
        return []
    names = curve.axis.by == "order"
    figure = _figure(0.55 + (0.5 if names else 0) + _PANEL * len(panels))
    axes: list[Axes] = list(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0])
    for axis, key in zip(axes, panels, strict=True):
        words, color, marker = _PANELS[key]
        there = [(p.place, p.numbers[key]) for p in curve.points if key in p.numbers]
        axis.errorbar(
            [place for place, _ in there],
            [found.value for _, found in there],
            yerr=[found.standard_error or 0 for _, found in there],
            color=color, marker=marker, markersize=3.5, linewidth=1, elinewidth=0.8, capsize=1.5,
            linestyle="-" if curve.connected else "",
        )  # fmt: skip
        lost = [point.place for point in curve.points if key not in point.numbers]
        if lost:
            # On the axis, in its own coordinates, so that no value is meant.
            axis.plot(
                lost, [0.06] * len(lost), "x", color="#777777", markersize=4, clip_on=False,
                transform=axis.get_xaxis_transform(),
            )  # fmt: skip
        axis.margins(x=0.04, y=0.1)
        _from_zero(axis)
        axis.set_ylabel(words)
    axes[0].set_title("bars: ± one standard error", fontsize=6.5, loc="right", color="#555555")
    _places(axes[-1], curve)
    figure.align_ylabels(axes)
    return _saved(figure, folder / "flatness")


def _against(curve: Curve, folder: Path) -> list[Path]:
    import matplotlib

    panels = [
        key
        for key in _AGAINST
        if sum(p.numbers.keys() >= {key, "loss_robust"} for p in curve.points) > 1
    ]
    if not panels:
        return []
    figure = _figure(2.6 * len(panels))
    axes: list[Axes] = list(figure.subplots(len(panels), squeeze=False)[:, 0])
    for axis, key in zip(axes, panels, strict=True):
        there = [p for p in curve.points if p.numbers.keys() >= {key, "loss_robust"}]
        x, y = ([p.numbers[one] for p in there] for one in (key, "loss_robust"))
        if curve.connected:
            axis.plot(
                [n.value for n in x], [n.value for n in y], color="#BBBBBB", linewidth=0.8, zorder=0
            )
        named = _apart([(a.value, b.value) for a, b in zip(x, y, strict=True)])
        for at, point in enumerate(there):
            shade = 0.85 - 0.75 * at / max(len(there) - 1, 1) if curve.connected else 0.3
            color = matplotlib.colormaps["viridis"](shade)
            axis.errorbar(
                x[at].value, y[at].value, xerr=x[at].standard_error, yerr=y[at].standard_error,
                color=color, marker="o", markersize=4, elinewidth=0.6, linestyle="",
            )  # fmt: skip
            if at in named:
                axis.annotate(
                    _name(curve, point.place, point.name), (x[at].value, y[at].value),
                    xytext=(4, 3), textcoords="offset points", fontsize=6.5,
                )  # fmt: skip
        if key in curve.correlations:
            axis.set_title("\n".join(correlation_words(curve.correlations[key])), fontsize=7)
        axis.set_xlabel(f"{_AGAINST[key]} (nats)")
        axis.set_ylabel("robust loss (nats)")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(0.12)
    brackets = "; in brackets 95 % bootstrap intervals over the models"
    known = any(found.pearson_interval for found in curve.correlations.values())
    figure.supxlabel(
        f"bars: ± one standard error{brackets if known else ''}", fontsize=6, color="#555555"
    )
    return _saved(figure, folder / "flatness-loss")


def _apart(places: list[tuple[float, float]]) -> set[int]:
    """Which points can carry a name: ends first, then those far enough from all that do."""
    spans = [max(column) - min(column) or 1.0 for column in zip(*places, strict=True)]
    order = [0, len(places) - 1, *range(1, len(places) - 1)]
    kept: list[int] = []
    for at in order:
        near = (
            abs(places[at][0] - places[other][0]) < 0.12 * spans[0]
            and abs(places[at][1] - places[other][1]) < 0.06 * spans[1]
            for other in kept
        )
        if not any(near):
            kept.append(at)
    return set(kept)


def _name(curve: Curve, place: float, name: str) -> str:
    if curve.axis.by == "order":
        return _short(name)
    first = place == curve.points[0].place
    return f"{_text(curve.axis.name)} {shown_place(place)}" if first else shown_place(place)


def _figure(height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _from_zero(axis: Axes) -> None:
    """Heights compare as ratios; values below zero are shown, with the line they cross."""
    axis.spines[["top", "right"]].set_visible(False)
    low = axis.get_ylim()[0]
    if low < 0 and any(value < 0 for line in axis.get_lines()[:1] for value in _values(line)):
        axis.axhline(0, color="#999999", linewidth=0.6, zorder=0)
    else:
        axis.set_ylim(bottom=0)


def _values(line: object) -> list[float]:
    return [float(value) for value in line.get_ydata()]  # type: ignore[attr-defined]


def _places(axis: Axes, curve: Curve) -> None:
    from matplotlib.ticker import MaxNLocator

    if curve.axis.by != "order":
        axis.set_xlabel(_text(curve.axis.name))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    elif len(curve.points) > _MOST_NAMES:
        axis.set_xlabel("place in the order given")
    else:
        places = [point.place for point in curve.points]
        shown = [_short(point.name) for point in curve.points]
        axis.set_xticks(places, shown, rotation=40, ha="right", rotation_mode="anchor")


def _short(name: str) -> str:
    text = _text(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _text(text: str) -> str:
    """Foreign text as matplotlib shows it: without control characters, dollars as themselves."""
    return plain(text).replace("$", r"\$")


def _saved(figure: Figure, stem: Path) -> list[Path]:
    paths = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    figure.savefig(paths[0], dpi=200, metadata={"Date": None})
    figure.savefig(paths[1], dpi=200)
    return paths
