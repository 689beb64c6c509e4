"""The study as pictures: each outcome against each measure, one point a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robaudit.batch.study import Pair, Study
from robaudit.report.pictures.drawing import new_figure, save, short, style
from robaudit.report.pictures.palette import BLUE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL = 1.7  # inches
# With more points than this, names would cover the points, and points each other.
_MOST_NAMES, _MANY = 8, 100


def write_study_plots(found: Sequence[Study], folder: Path) -> list[Path]:
    """Write ``study.svg`` and ``.png``, numbered where there are several studies."""
    paths: list[Path] = []
    for number, study in enumerate(found, 1):
        stem = folder / ("study" if len(found) == 1 else f"study-{number}")
        paths += save(study_figure(study), stem, study.title)
    return paths


@style()
def study_figure(study: Study) -> Figure | None:
    """Scatter plots, a row an outcome and a column a measure; ``None`` without any pair."""
    pairs = {(pair.measure, pair.outcome): pair for pair in study.pairs}
    measures = {pair.measure: pair.labels[0] for pair in study.pairs}
    outcomes = {pair.outcome: pair.labels[1] for pair in study.pairs}
    if not pairs:
        return None
    figure = new_figure(_PANEL * len(outcomes) + 0.5)
    figure.set_figwidth(_PANEL * len(measures) + 0.6)
    grid = figure.subplots(len(outcomes), len(measures), squeeze=False)
    for row, outcome in zip(grid, outcomes, strict=True):
        for axis, measure in zip(row, measures, strict=True):
            _scatter(axis, pairs.get((measure, outcome)))
    for axis, label in zip(grid[-1], measures.values(), strict=True):
        axis.set_xlabel(label)
    for axis, label in zip(grid[:, 0], outcomes.values(), strict=True):
        axis.set_ylabel(label)
    return figure


def _scatter(axis: Axes, pair: Pair | None) -> None:
    if pair is None:
        axis.set_axis_off()
        return
    axis.tick_params(labelsize=6)
    many = len(pair.x) > _MANY
    axis.scatter(
        pair.x, pair.y, s=3 if many else 12, color=BLUE, alpha=0.5 if many else 0.9, linewidths=0
    )
    if len(pair.x) <= _MOST_NAMES:
        for name, x, y in zip(pair.names, pair.x, pair.y, strict=True):
            axis.annotate(short(name, 24), (x, y), (2, 2), textcoords="offset points", fontsize=5)
    axis.margins(0.12)
    if pair.found is not None:
        axis.set_title(f"Spearman {pair.found.spearman:+.2f}", fontsize=6.5, pad=3)
