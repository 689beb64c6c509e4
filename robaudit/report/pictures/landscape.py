"""A loss landscape: curves along lines; contours and a surface over a plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robaudit.report.landscape import Landscape, Losses, loss_name
from robaudit.report.pictures.drawing import (
    SMALL,
    error_band,
    legend_above,
    line,
    logarithmic,
    new_figure,
    save,
    short,
    style,
)
from robaudit.report.pictures.palette import LINES, SOFT
from robaudit.report.text import model_names, plain

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure

    from robaudit.report.landscape import Array

_KINDS = {"clean": LINES[0], "robust": LINES[1]}
# Where the largest loss is so many times the smallest, a linear scale shows the largest alone.
_WIDE = 50
_LEVELS = 12
# From here up the colour map is too light for white lines.
_BRIGHT = 0.6
_STEPS = [1, 2, 2.5, 5, 10]
# Of the path's extent: nearer to each other, only the first of two checkpoints is named.
_BESIDE, _ABOVE = 0.25, 0.1
_LONGEST_NAME, _LONGEST_LABEL = 28, 45


def landscape_pictures(landscape: Landscape) -> dict[str, Callable[[], Figure]]:
    """What draws each picture of a landscape, by the name of its file without the suffix."""
    if len(landscape.places) == 1:
        return {"landscape": partial(curves, landscape)}
    kinds = {"landscape-contour": contour, "landscape-surface": surface}
    return {name: partial(draw, landscape) for name, draw in kinds.items()}


def landscape_figures(landscape: Landscape) -> dict[str, Figure]:
    """Every picture of a landscape, by the name of its file without the suffix."""
    return {name: draw() for name, draw in landscape_pictures(landscape).items()}


def save_landscape(landscape: Landscape, folder: Path) -> None:
    """Write :func:`landscape_figures` as SVG and PNG."""
    for name, figure in landscape_figures(landscape).items():
        save(figure, folder / name)


@style()
def curves(landscape: Landscape) -> Figure:
    """Losses along lines.

    One model: clean and robust loss in one panel. Several: a panel for each loss, with a curve for
    each model. Bands are one standard error over examples; faint lines are the single directions,
    of which the curve is the mean.
    """
    from matplotlib.lines import Line2D

    kinds = list(landscape.models[0].losses)
    single = len(landscape.models) == 1
    panels = [kinds] if single else [[kind] for kind in reversed(kinds)]
    figure = new_figure(3.0 if single else 1.0 + 2.0 * len(panels))
    axes = figure.subplots(len(panels), sharex=True, sharey=True, squeeze=False)[:, 0]
    drawn = [losses for model in landscape.models for losses in model.losses.values()]
    log = _is_wide([losses.mean for losses in drawn])
    lowest = min(
        float(part.min()) for one in drawn for part in (one.mean, one.lines) if part is not None
    )
    for axis, panel in zip(axes, panels, strict=True):
        for (name, losses), look in zip(_named(landscape, panel), LINES * 9, strict=False):
            _draw_curve(axis, landscape.places[0], losses, name, _KINDS[name] if single else look)
        what = "loss" if single else loss_name(panel[0])
        axis.set_ylabel(f"{what} (nats{', log scale' if log else ''})")
        if log:
            logarithmic(axis, "y")
        if not log or lowest > 0:
            axis.set_ylim(bottom=lowest / 1.5 if log else 0)
        axis.margins(x=0.02)
        for (place,), _ in landscape.checkpoints:
            axis.axvline(place, color=SOFT, linewidth=0.6, zorder=0)
    axes[-1].set_xlabel(short(landscape.labels[0], _LONGEST_LABEL))
    if landscape.checkpoints:
        over = axes[0].secondary_xaxis("top")
        over.set_xticks([place for (place,), _ in landscape.checkpoints], _names(landscape))
        over.tick_params(length=0)
        over.spines["top"].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    named: dict[str, Artist] = dict(zip(labels, handles, strict=True))
    if not all(_is_unknown(losses) for losses in drawn):
        named |= error_band()
    if any(losses.lines is not None and len(losses.lines) > 1 for losses in drawn):
        named["single directions"] = Line2D([], [], color=SOFT, alpha=0.5, linewidth=0.6)
    name = landscape.names[0] if single and not landscape.checkpoints else ""
    axes[0].set_title(_title(landscape.settings, name))
    legend_above(figure, named)
    return figure


def _named(landscape: Landscape, kinds: list[str]) -> Iterator[tuple[str, Losses]]:
    if len(landscape.models) == 1:
        yield from ((kind, landscape.models[0].losses[kind]) for kind in kinds)
        return
    for name, model in zip(landscape.names, landscape.models, strict=True):
        yield name, model.losses[kinds[0]]


def _draw_curve(
    axis: Axes, s: Array, losses: Losses, name: str, look: tuple[str, str, str]
) -> None:
    colour, dash, _ = look
    if losses.lines is not None and len(losses.lines) > 1:
        for one in losses.lines:
            axis.plot(s, one, color=colour, linestyle=dash, linewidth=0.5, alpha=0.4)
    low, high = losses.mean - losses.standard_error, losses.mean + losses.standard_error
    band = None if _is_unknown(losses) else (low.clip(min=1e-12), high)
    line(axis, s, losses.mean, band, (colour, dash, ""), short(name, _LONGEST_NAME))


@style()
def contour(landscape: Landscape) -> Figure:
    """Contours of each loss over a plane, all in one colour scale."""
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import MaxNLocator

    losses = landscape.models[0].losses
    low, high = _limits(losses)
    log = _is_wide([one.mean for one in losses.values()])
    space = np.geomspace if log else np.linspace
    levels = space(low, high, _LEVELS + 1)
    norm = (LogNorm if log else Normalize)(low, high)
    figure = new_figure(0.6 + 2.45 * len(losses))
    figure.set_layout_engine("compressed")
    axes = figure.subplots(len(losses), sharex=True, squeeze=False)[:, 0]
    for axis, (kind, one) in zip(axes, losses.items(), strict=True):
        grid = (*landscape.places, np.clip(one.mean, low, high))
        drawn = axis.contourf(*grid, levels=levels, norm=norm, cmap="cividis")
        shown = levels[1:-1:2]
        colours = ["#ffffff" if norm(level) < _BRIGHT else "#000000" for level in shown]
        _label_contours(axis, axis.contour(*grid, levels=shown, colors=colours, linewidths=0.6))
        axis.set_title(loss_name(kind), fontsize=8)
        axis.set_ylabel(short(landscape.labels[1], _LONGEST_LABEL))
        axis.set_aspect("auto" if landscape.path else "equal")
        for either in (axis.xaxis, axis.yaxis):
            either.set_major_locator(MaxNLocator(5, steps=_STEPS))
        (_draw_path if landscape.path else _draw_corners)(axis, landscape)
    axes[-1].set_xlabel(short(landscape.labels[0], _LONGEST_LABEL))
    bar = figure.colorbar(
        drawn, ax=list(axes), label=f"loss (nats{', log scale' if log else ''})", shrink=0.8
    )
    ticks = levels[::3].tolist()
    bar.set_ticks(ticks, labels=[_loss(level) for level in ticks])
    bar.ax.minorticks_off()
    figure.suptitle(_title(landscape.settings, _plane_title(landscape)), fontsize=SMALL)
    return figure


def _label_contours(axis: Axes, lines: QuadContourSet) -> None:
    """Write each line's loss on it, except where the frame would cut the number."""
    inside = []
    for text in axis.clabel(lines, inline=False):  # where the numbers would stand
        place = text.get_position()
        x, y = axis.transAxes.inverted().transform(axis.transData.transform(place))
        if 0.1 < x < 0.9 and 0.05 < y < 0.95:
            inside.append(place)
        text.remove()
    if inside:  # the others are not drawn, so that no line has a gap without a number
        axis.clabel(lines, fmt=_loss, fontsize=SMALL - 1, manual=inside)


def _draw_corners(axis: Axes, landscape: Landscape) -> None:
    for ((s, t), _), name in zip(landscape.checkpoints, _names(landscape), strict=True):
        axis.plot([s], [t], "o", markersize=4, color="#ffffff", markeredgecolor="#000000")
        # Away from each other: the first below its point, the second to the left of its own.
        first, left = s == t == 0, s > 0.5
        axis.annotate(
            name,
            (s, t),
            xytext=(-3 if left else 3, -5 if first else 4),
            textcoords="offset points",
            fontsize=SMALL,
            color="#000000",
            ha="right" if left else "left",
            va="top" if first else "bottom",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "#ffffff", "alpha": 0.8, "lw": 0},
        )
    if not landscape.checkpoints:
        axis.plot([0], [0], "+", markersize=6, color="#ffffff")


def _draw_path(axis: Axes, landscape: Landscape) -> None:
    """The checkpoints in the order of training, each with its epoch where there is room."""
    places = [(place[0], place[1]) for place, _ in landscape.checkpoints]
    xs, ys = zip(*places, strict=True)
    axis.plot(xs, ys, "-", color="#ffffff", linewidth=1.6)
    axis.plot(xs, ys, "o-", markersize=3.2, color="#000000", linewidth=0.8)
    width, height = (max(values) - min(values) or 1 for values in (xs, ys))
    named: list[tuple[float, float]] = []
    ends = (0, len(places) - 1)
    for at in sorted(range(len(places)), key=lambda at: (at not in ends, at)):
        x, y = places[at]
        if any(abs(x - a) < _BESIDE * width and abs(y - b) < _ABOVE * height for a, b in named):
            continue
        named.append((x, y))
        right = x > max(xs) - width / 6
        axis.annotate(
            short(landscape.path[at].label, _LONGEST_NAME),
            (x, y),
            xytext=(-4 if right else 3, 4),
            textcoords="offset points",
            fontsize=SMALL - 1,
            color="#000000",
            ha="right" if right else "left",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "#ffffff", "alpha": 0.8, "lw": 0},
        )


@style()
def surface(landscape: Landscape) -> Figure:
    """Each loss over a plane as a surface, all with one height scale."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    losses = landscape.models[0].losses
    low, high = _limits(losses)
    log = _is_wide([one.mean for one in losses.values()])
    height = np.log10 if log else np.asarray
    s, t = np.meshgrid(*landscape.places)
    figure = new_figure(0.5 + 2.7 * len(losses))
    for at, (kind, one) in enumerate(losses.items()):
        axis: Any = figure.add_subplot(len(losses), 1, at + 1, projection="3d")
        axis.plot_surface(
            s,
            t,
            height(one.mean),
            cmap="cividis",
            vmin=height(low),
            vmax=height(high),
            rstride=1,
            cstride=1,
            linewidth=0.2,
            edgecolor="#333333",
        )
        axis.set_zlim(height(low) if log else 0, height(high))
        axis.set_title(loss_name(kind), fontsize=8, y=0.98)
        axis.set_xlabel("s", labelpad=-6)
        axis.set_ylabel("t", labelpad=-6)
        axis.set_zlabel(f"loss (nats{', log scale' if log else ''})", labelpad=-3)
        for either in (axis.xaxis, axis.yaxis, axis.zaxis):
            either.set_major_locator(
                MaxNLocator(4, steps=_STEPS, integer=log and either is axis.zaxis)
            )
        if log:
            axis.zaxis.set_major_formatter(lambda value, _: f"{10**value:.3g}")
        axis.tick_params(labelsize=SMALL - 1, pad=-2)
        axis.view_init(28, -60)
        axis.set_box_aspect((1, 1, 0.75), zoom=0.88)
    labels = (short(label, _LONGEST_LABEL) for label in landscape.labels)
    figure.supxlabel("\n".join(labels), fontsize=SMALL)
    figure.suptitle(_title(landscape.settings, _plane_title(landscape)), fontsize=SMALL)
    return figure


def _names(landscape: Landscape) -> list[str]:
    """Those of the checkpoints that the landscape is between."""
    sources = [source for _, source in landscape.checkpoints]
    return [short(name, _LONGEST_NAME) for name in model_names(sources)]


def _is_unknown(losses: Losses) -> bool:
    import numpy as np

    return bool(np.isnan(losses.standard_error).any())


def _limits(losses: dict[str, Losses]) -> tuple[float, float]:
    low = min(float(one.mean.min()) for one in losses.values())
    high = max(float(one.mean.max()) for one in losses.values())
    return max(low, 1e-12), max(high, max(low, 1e-12) * (1 + 1e-6))


def _is_wide(means: list[Array]) -> bool:
    low, high = min(m.min() for m in means), max(m.max() for m in means)
    return bool(high > _WIDE * max(low, 1e-12))


def _loss(value: float) -> str:
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def _plane_title(landscape: Landscape) -> str:
    return "" if landscape.checkpoints else landscape.names[0]


def _title(settings: dict[str, Any], name: str) -> str:
    return "\n".join(plain(part) for part in (name, settings["title"]) if part)
