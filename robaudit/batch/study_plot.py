"""The study as pictures: every coefficient with its interval; each outcome against each measure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robaudit.batch.study import Pair, Study
from robaudit.report.pictures.drawing import SMALL, new_figure, save, short, style
from robaudit.report.pictures.palette import BLUE, LINES, RULE, SOFT
from robaudit.report.text import model_names

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _ACROSS = 7.0, 4  # inches: two columns of a page; panels
_PANEL = 1.7
# With more points than this, names would cover the points, and points each other.
_MOST_NAMES, _MANY = 8, 100
_TINY = 5.5  # points


def write_study_plots(found: Sequence[Study], folder: Path) -> list[Path]:
    """Write ``study.svg`` and ``.png``, and ``study-OUTCOME`` for each outcome.

    Numbered where there are several studies.
    """
    paths: list[Path] = []
    for number, study in enumerate(found, 1):
        stem = "study" if len(found) == 1 else f"study-{number}"
        paths += save(coefficients_figure(study), folder / stem, study.title)
        for outcome in dict.fromkeys(pair.outcome for pair in study.pairs):
            name = f"{stem}-{outcome.replace('.', '-')}"
            paths += save(scatter_figure(study, outcome), folder / name, study.title)
    return paths


@style()
def coefficients_figure(study: Study) -> Figure | None:
    """Spearman's coefficient of every pair: a panel an outcome, a line a measure.

    A bar is the interval, the thick part what the coefficient can be without any one model, and a
    cross the partial coefficient. Filled where the corrected p value is below 0.05.
    """
    measures = list(dict.fromkeys(pair.labels[0] for pair in study.pairs))
    outcomes = dict.fromkeys(pair.labels[1] for pair in study.pairs)
    if not measures:
        return None
    figure = new_figure(0.19 * len(measures) + 1.1)
    figure.set_figwidth(_WIDTH)
    axes = figure.subplots(1, len(outcomes), sharey=True, squeeze=False)[0]
    places = {label: -at for at, label in enumerate(measures)}
    for axis, outcome in zip(axes, outcomes, strict=True):
        own = [pair for pair in study.pairs if pair.labels[1] == outcome]
        _coefficients(axis, own, places)
        axis.set(xlim=(-1.05, 1.05), title=outcome)
        axis.set_yticks(list(places.values()), list(places), fontsize=SMALL)
        axis.set_xticks([-1, -0.5, 0, 0.5, 1], ["-1", "-.5", "0", ".5", "1"])
    said = "Spearman's coefficient; thin: 95 % interval, thick: without any one model, filled: "
    said += "p < 0.05 (Holm)"
    if any(pair.found is not None and pair.found.partial for pair in study.pairs):
        said += f"\ncross: {study.given} held fixed"
    figure.supxlabel(said, fontsize=6.5, color=SOFT)
    return figure


def _coefficients(axis: Axes, pairs: Sequence[Pair], places: dict[str, int]) -> None:
    axis.axvline(0, color=RULE, linewidth=0.8, zorder=0)
    for pair in pairs:
        if pair.found is None:
            continue
        one, y = pair.found.spearman, places[pair.labels[0]]
        if one.interval is not None:
            axis.plot([one.interval.low, one.interval.high], [y, y], color=BLUE, linewidth=0.7)
        if one.without is not None:
            axis.plot(one.without, [y, y], color=BLUE, linewidth=2.4, solid_capstyle="butt")
        sure = pair.corrected is not None and pair.corrected < 0.05
        face = BLUE if sure else "white"
        axis.plot(one.value, y, "o", markersize=4, markerfacecolor=face, color=BLUE)
        if pair.found.partial is not None:
            axis.plot(pair.found.partial.value, y, "x", color=SOFT, markersize=3.5, zorder=4)


@style()
def scatter_figure(study: Study, outcome: str) -> Figure | None:
    """The outcome against every measure, one point a model, coloured by group."""
    pairs = [pair for pair in study.pairs if pair.outcome == outcome]
    if not pairs:
        return None
    across = min(_ACROSS, len(pairs))
    down = -(-len(pairs) // across)
    figure = new_figure(_PANEL * down + 0.6)
    figure.set_figwidth(_WIDTH if across == _ACROSS else _PANEL * across + 0.6)
    looks = _looks(study)
    named: dict[str, Artist] = {}
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for axis in grid.flat[len(pairs) :]:
        axis.set_axis_off()
    for axis, pair in zip(grid.flat, pairs, strict=False):
        named |= _scatter(axis, pair, looks)
        axis.set_xlabel(pair.labels[0], fontsize=6.5)
    for axis in grid[:, 0]:
        axis.set_ylabel(pairs[0].labels[1])
    if named:
        figure.legend(
            list(named.values()), list(named), loc="outside lower center", ncols=min(4, len(named))
        )
    return figure


def _looks(study: Study) -> dict[str, tuple[str, str, str]]:
    """Name, colour and marker of each group; nothing for too many, or groups of one model."""
    groups = sorted({group for pair in study.pairs for group in pair.groups})
    looks = [(colour, marker) for colour, _, marker in LINES] + [("#707070", "*")]
    if study.groups == study.models or len(groups) > len(looks):
        return {}
    short_names = model_names(groups)
    return {
        group: (short(name, 24), *look)
        for group, name, look in zip(groups, short_names, looks, strict=False)
    }


def _scatter(axis: Axes, pair: Pair, looks: dict[str, tuple[str, str, str]]) -> dict[str, Artist]:
    """Draw the points; gives what a legend names."""
    axis.tick_params(labelsize=6)
    many = len(pair.x) > _MANY
    size, alpha = (3, 0.5) if many else (12, 0.9)
    named: dict[str, Artist] = {}
    for group in dict.fromkeys(pair.groups):
        name, colour, marker = looks.get(group, ("", BLUE, "o"))
        at = [k for k, own in enumerate(pair.groups) if own == group]
        points = axis.scatter(
            [pair.x[k] for k in at],
            [pair.y[k] for k in at],
            s=size,
            color=colour,
            marker=marker,
            alpha=alpha,
            linewidths=0,
        )
        named |= {name: points} if name else {}
    for name, x, y in zip(pair.names, pair.x, pair.y, strict=True):
        if len(pair.x) <= _MOST_NAMES or name == pair.influential:
            axis.annotate(
                short(name, 20), (x, y), (2, 2), textcoords="offset points", fontsize=_TINY
            )
    axis.margins(0.12)
    if pair.found is not None:
        one = pair.found.spearman
        within = one.interval
        around = "" if within is None else f" [{within.low:+.2f}, {within.high:+.2f}]"
        axis.set_title(f"Spearman {one.value:+.2f}{around}", fontsize=6, pad=3)
    return named
