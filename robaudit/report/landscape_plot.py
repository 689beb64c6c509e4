"""A landscape as pictures: curves along lines; contours and a surface over a plane."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robaudit.report.landscape import Lines, Losses, Plane, loss_name
from robaudit.report.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION
from robaudit.report.text import model_names, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import QuadContourSet
    from matplotlib.figure import Figure

    from robaudit.report.landscape import Array

_LINES = (
    (BLUE, "-"), (VERMILION, "--"), (GREEN, "-."), (PURPLE, ":"), (ORANGE, "-"), (SKY, "--"),
    (BLACK, "-."),
)  # fmt: skip
_KINDS = {"clean": _LINES[0], "robust": _LINES[1]}
_WIDTH = 3.5  # inches: the column of a two-column page
_SMALL = 7
# Where the largest loss is so many times the smallest, a linear scale shows the largest alone.
_WIDE = 50
_LEVELS = 12
# From here up the colour map is too light for white lines.
_BRIGHT = 0.6
_STEPS = [1, 2, 2.5, 5, 10]


def write_lines(landscape: Lines, folder: Path) -> list[Path]:
    """Write ``landscape.svg`` and ``landscape.png``.

    One model: clean and robust loss over each other. Several: a panel for each loss, the models
    over each other on the same axes. Bands are one standard error over examples; faint lines are
    the directions that the mean is over.
    """
    kinds = list(landscape.models[0].losses)
    single = len(landscape.models) == 1
    panels = [kinds] if single else [[kind] for kind in reversed(kinds)]
    with _figure(3.0 if single else 1.0 + 2.0 * len(panels)) as figure:
        axes = figure.subplots(len(panels), sharex=True, sharey=True, squeeze=False)[:, 0]
        drawn = [losses for model in landscape.models for losses in model.losses.values()]
        log = _wide([losses.mean for losses in drawn])
        lowest = min(
            float(part.min()) for one in drawn for part in (one.mean, one.lines) if part is not None
        )
        for axis, panel in zip(axes, panels, strict=True):
            for (name, losses), style in zip(_curves(landscape, panel), _LINES * 9, strict=False):
                _curve(axis, landscape.s, losses, name, *(_KINDS[name] if single else style))
            what = "loss" if single else loss_name(panel[0])
            axis.set_ylabel(f"{what} (nats{', log scale' if log else ''})")
            if log:
                axis.set_yscale("log")
                axis.set_ylim(bottom=lowest / 1.5)
            else:
                axis.set_ylim(bottom=0)
            axis.spines[["top", "right"]].set_visible(False)
            axis.margins(x=0.02)
            for place, _ in landscape.ends:
                axis.axvline(place, color="#999999", linewidth=0.6, zorder=0)
        axes[-1].set_xlabel(_text(landscape.label))
        if landscape.ends:
            names = model_names([source for _, source in landscape.ends])
            over = axes[0].secondary_xaxis("top")
            over.set_xticks([place for place, _ in landscape.ends], [_text(n) for n in names])
            over.tick_params(length=0)
            over.spines["top"].set_visible(False)
        handles, labels = axes[0].get_legend_handles_labels()
        if not all(_is_unknown(losses) for _, losses in _curves(landscape, kinds)):
            from matplotlib.patches import Patch

            handles.append(Patch(color="#777777", alpha=0.3, linewidth=0))
            labels.append("± one s.e.")
        lines = landscape.models[0].losses["clean"].lines
        if lines is not None and len(lines) > 1:
            from matplotlib.lines import Line2D

            handles.append(Line2D([], [], color="#777777", alpha=0.5, linewidth=0.6))
            labels.append("single directions")
        name = landscape.names[0] if single and not landscape.ends else ""
        axes[0].set_title(_title(landscape.settings, name), fontsize=_SMALL)
        figure.legend(
            handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=_SMALL,
            columnspacing=1.2, handlelength=2.2,
        )  # fmt: skip
        return _save(figure, folder, "landscape")


def write_contour(landscape: Plane, folder: Path) -> list[Path]:
    """Write ``landscape-contour.svg`` and ``.png``: one panel a loss, all of one colour scale."""
    import numpy as np
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import MaxNLocator

    losses = landscape.model.losses
    low, high = _limits(losses)
    log = _wide([one.mean for one in losses.values()])
    space = np.geomspace if log else np.linspace
    levels = space(low, high, _LEVELS + 1)
    norm = (LogNorm if log else Normalize)(low, high)
    with _figure(0.6 + 2.45 * len(losses), "compressed") as figure:
        axes = figure.subplots(len(losses), sharex=True, squeeze=False)[:, 0]
        for axis, (kind, one) in zip(axes, losses.items(), strict=True):
            grid = (landscape.s, landscape.t, np.clip(one.mean, low, high))
            drawn = axis.contourf(*grid, levels=levels, norm=norm, cmap="cividis")
            shown = levels[1:-1:2]
            colours = ["white" if norm(level) < _BRIGHT else "black" for level in shown]
            lines = axis.contour(*grid, levels=shown, colors=colours, linewidths=0.6)
            _label(axis, lines)
            axis.set_title(loss_name(kind), fontsize=8)
            axis.set_ylabel(_text(landscape.labels[1]))
            axis.set_aspect("equal")
            for either in (axis.xaxis, axis.yaxis):
                either.set_major_locator(MaxNLocator(5, steps=_STEPS))
            _corners(axis, landscape)
        axes[-1].set_xlabel(_text(landscape.labels[0]))
        bar = figure.colorbar(
            drawn, ax=list(axes), label=f"loss (nats{', log scale' if log else ''})", shrink=0.8,
        )  # fmt: skip
        ticks = levels[::3].tolist()
        bar.set_ticks(ticks, labels=[_short(level) for level in ticks])
        bar.ax.minorticks_off()
        figure.suptitle(_title(landscape.settings, _plane_title(landscape)), fontsize=_SMALL)
        return _save(figure, folder, "landscape-contour", bbox_inches="tight", pad_inches=0.04)


def write_surface(landscape: Plane, folder: Path) -> list[Path]:
    """Write ``landscape-surface.svg`` and ``.png``: one panel a loss, of one height scale."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    losses = landscape.model.losses
    low, high = _limits(losses)
    log = _wide([one.mean for one in losses.values()])
    height = np.log10 if log else np.asarray
    s, t = np.meshgrid(landscape.s, landscape.t)
    with _figure(0.5 + 2.7 * len(losses)) as figure:
        for at, (kind, one) in enumerate(losses.items()):
            axis: Any = figure.add_subplot(len(losses), 1, at + 1, projection="3d")
            axis.plot_surface(
                s, t, height(one.mean), cmap="cividis", vmin=height(low), vmax=height(high),
                rstride=1, cstride=1, linewidth=0.2, edgecolor="#333333",
            )  # fmt: skip
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
            axis.tick_params(labelsize=_SMALL - 1, pad=-2)
            axis.view_init(28, -60)
            axis.set_box_aspect((1, 1, 0.75), zoom=0.88)
        figure.supxlabel("\n".join(map(_text, landscape.labels)), fontsize=_SMALL)
        figure.suptitle(_title(landscape.settings, _plane_title(landscape)), fontsize=_SMALL)
        return _save(figure, folder, "landscape-surface")


def _curves(landscape: Lines, kinds: list[str]) -> Iterator[tuple[str, Losses]]:
    if len(landscape.models) == 1:
        yield from ((kind, landscape.models[0].losses[kind]) for kind in kinds)
        return
    for name, model in zip(landscape.names, landscape.models, strict=True):
        yield name, model.losses[kinds[0]]


def _curve(axis: Axes, s: Array, losses: Losses, name: str, colour: str, dash: str) -> None:
    if losses.lines is not None and len(losses.lines) > 1:
        for line in losses.lines:
            axis.plot(s, line, color=colour, linestyle=dash, linewidth=0.5, alpha=0.4)
    axis.plot(s, losses.mean, color=colour, linestyle=dash, linewidth=1.3, label=_text(name))
    if not _is_unknown(losses):
        low, high = losses.mean - losses.standard_error, losses.mean + losses.standard_error
        axis.fill_between(s, low.clip(min=1e-12), high, color=colour, alpha=0.2, linewidth=0)


def _label(axis: Axes, lines: QuadContourSet) -> None:
    """Losses on their lines, but for those that the frame would cut."""
    for text in axis.clabel(lines, fmt=_short, fontsize=_SMALL - 1):
        x, y = axis.transAxes.inverted().transform(axis.transData.transform(text.get_position()))
        if not (0.1 < x < 0.9 and 0.05 < y < 0.95):
            text.remove()


def _corners(axis: Axes, landscape: Plane) -> None:
    names = model_names([source for *_, source in landscape.corners])
    for (s, t, _), name in zip(landscape.corners, names, strict=True):
        axis.plot([s], [t], "o", markersize=4, color="white", markeredgecolor="black")
        # Apart from each other: the first below its point, the second to the left of its.
        first, left = s == t == 0, s > 0.5
        axis.annotate(
            _text(name), (s, t), xytext=(-3 if left else 3, -5 if first else 4),
            textcoords="offset points", fontsize=_SMALL, ha="right" if left else "left",
            va="top" if first else "bottom",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.8, "lw": 0},
        )  # fmt: skip
    if not landscape.corners:
        axis.plot([0], [0], "+", markersize=6, color="white")


def _is_unknown(losses: Losses) -> bool:
    import numpy as np

    return bool(np.isnan(losses.standard_error).any())


def _limits(losses: dict[str, Losses]) -> tuple[float, float]:
    low = min(float(one.mean.min()) for one in losses.values())
    high = max(float(one.mean.max()) for one in losses.values())
    return max(low, 1e-12), max(high, max(low, 1e-12) * (1 + 1e-6))


def _wide(means: list[Array]) -> bool:
    low, high = min(m.min() for m in means), max(m.max() for m in means)
    return bool(high > _WIDE * max(low, 1e-12))


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def _plane_title(landscape: Plane) -> str:
    return "" if landscape.corners else landscape.name


def _title(settings: dict[str, Any], name: str) -> str:
    return _text("\n".join(part for part in (name, settings["title"]) if part))


@contextmanager
def _figure(
    height: float, layout: Literal["constrained", "compressed"] = "constrained"
) -> Iterator[Figure]:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Letters stay letters in the SVG, to be searched and read aloud.
    with matplotlib.rc_context(
        {"font.size": 8, "svg.fonttype": "none", "svg.hashsalt": "robaudit"}
    ):
        figure = Figure(figsize=(_WIDTH, height), layout=layout)
        FigureCanvasAgg(figure)
        yield figure


def _save(figure: Figure, folder: Path, name: str, **cut: Any) -> list[Path]:
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    for path in paths:
        dated = {"Date": None} if path == paths[0] else None
        figure.savefig(path, dpi=200, metadata=dated, **cut)
    return paths


def _text(text: str) -> str:
    """Foreign text as matplotlib shows it: without control characters, dollars as themselves."""
    return "\n".join(plain(line).replace("$", r"\$") for line in text.split("\n"))
