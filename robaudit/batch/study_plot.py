"""The study as pictures: each outcome against each measure, a point a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robaudit.batch.study import Pair, Study
from robaudit.report.palette import BLUE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL = 1.7  # inches
# Beyond so many points their names would cover them, and the points each other.
_MOST_NAMES, _MANY = 8, 100


def write_study_plots(found: Sequence[Study], folder: Path) -> list[Path]:
    """Write ``study.svg`` and ``.png``, numbered where there are several studies."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paths: list[Path] = []
    for number, study in enumerate(found, 1):
        pairs = {(pair.measure, pair.outcome): pair for pair in study.pairs}
        measures = {pair.measure: pair.labels[0] for pair in study.pairs}
        outcomes = {pair.outcome: pair.labels[1] for pair in study.pairs}
        if not pairs:
            continue
        stem = folder / ("study" if len(found) == 1 else f"study-{number}")
        with matplotlib.rc_context({"font.size": 7, "svg.fonttype": "none"}):
            size = (_PANEL * len(measures) + 0.6, _PANEL * len(outcomes) + 0.5)
            figure = Figure(figsize=size, layout="constrained")
            FigureCanvasAgg(figure)
            grid = figure.subplots(len(outcomes), len(measures), squeeze=False)
            for row, outcome in enumerate(outcomes):
                for column, measure in enumerate(measures):
                    axis = grid[row, column]
                    _scatter(axis, pairs.get((measure, outcome)))
                    if row == len(outcomes) - 1:
                        axis.set_xlabel(measures[measure])
                    if column == 0:
                        axis.set_ylabel(outcomes[outcome])
            figure.suptitle(study.title.replace("$", r"\$"), fontsize=8)
            for path in (stem.with_suffix(".svg"), stem.with_suffix(".png")):
                figure.savefig(path, dpi=200)
                paths.append(path)
    return paths


def _scatter(axis: Axes, pair: Pair | None) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=6)
    if pair is None:
        axis.set_axis_off()
        return
    many = len(pair.x) > _MANY
    axis.scatter(
        pair.x, pair.y, s=3 if many else 12, color=BLUE, alpha=0.5 if many else 0.9, linewidths=0
    )
    if len(pair.x) <= _MOST_NAMES:
        for name, x, y in zip(pair.names, pair.x, pair.y, strict=True):
            axis.annotate(
                name.replace("$", r"\$"), (x, y), (2, 2), textcoords="offset points", fontsize=5
            )
    axis.margins(0.12)
    if pair.found is not None:
        axis.set_title(f"Spearman {pair.found.spearman:+.2f}", fontsize=6.5, pad=3)
