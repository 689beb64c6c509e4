"""Correlations of weight-space measures with robustness over the models of a run.

As the tables and figures of "Relating Adversarially Robust Generalization to Flat Minima" (Stutz,
Hein & Schiele, ICCV 2021) and of the paper on the Weight-Curvature Index, for their models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from robaudit import measures
from robaudit.batch.directory import State
from robaudit.batch.leaderboard import Leaderboard, RankedModel, leaderboards, value_of
from robaudit.errors import UsageError
from robaudit.report.table import MISSING, Cell, Column, Table, names, text
from robaudit.schema import Interval
from robaudit.statistics.correlations import Correlation, correlation

_ERROR = "error"  # one minus the accuracy that models are ranked by
_FEWEST = 3


@dataclass(frozen=True)
class Pair:
    """A measure and an outcome over the models that have both.

    Attributes:
        measure: its name in reports; ``outcome`` likewise, or ``error``.
        labels: of the measure and of the outcome, in words.
        names: of the models, as long as ``x`` and ``y``.
        x, y: the measure's and the outcome's value for each model.
        found: ``None`` where one of the two is constant.
    """

    measure: str
    outcome: str
    labels: tuple[str, str]
    names: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    found: Correlation | None


@dataclass(frozen=True)
class Study:
    """The models measured on the same examples within the same threat model.

    Attributes:
        attack: of the robust error.
        models: how many.
        architectures: how many; curvature depends on them.
    """

    title: str
    attack: str
    models: int
    architectures: int
    pairs: list[Pair] = field(default_factory=list)


def studies(state: State) -> list[Study]:
    """One study for each data set and threat model that has three models or more.

    A model that is listed twice counts once.

    Raises:
        UsageError: there is none.
        DataError: a report cannot be read.
    """
    found = []
    keys = {row.job.source: row.key for row in state.rows}
    for board in leaderboards(state):
        models: dict[str, RankedModel] = {}
        for model in board.models:
            if model.report is not None:
                models.setdefault(keys[model.source], model)
        if len(models) >= _FEWEST:
            found.append(_study(board, list(models.values())))
    if not found:
        raise UsageError(
            "a correlation takes three finished models of the same data and threat model",
            "Look with: robaudit batch status.",
        )
    return found


def _study(board: Leaderboard, models: list[RankedModel]) -> Study:
    registered = [row for row in measures.known() if row.study]
    inputs = {row.name: row.study for row in registered if not row.outcome}
    outcomes = {_ERROR: "robust error"}
    outcomes |= {row.name: row.study for row in registered if row.outcome}
    values = {name: [_value(model, name) for model in models] for name in inputs | outcomes}
    pairs = []
    for measure, label in inputs.items():
        for outcome, outcome_label in outcomes.items():
            rows = [
                (model.name, x, y)
                for model, x, y in zip(models, values[measure], values[outcome], strict=True)
                if x is not None and y is not None
            ]
            if len(rows) < _FEWEST:
                continue
            of, x, y = zip(*rows, strict=True)
            labels = label, outcome_label
            pairs.append(Pair(measure, outcome, labels, of, x, y, correlation(x, y)))
    architectures = {model.report.subject.architecture for model in models if model.report}
    return Study(board.title, board.attack, len(models), len(architectures), pairs)


def _value(model: RankedModel, name: str) -> float | None:
    if name != _ERROR:
        return value_of(model.report, name) if model.report else None
    return None if model.accuracy is None else 1 - model.accuracy


def study_tables(found: Sequence[Study]) -> list[Table]:
    """A table for each study: a row for each pair, with its coefficients and their intervals."""
    return [_table(study) for study in found]


def study_csv(found: Sequence[Study]) -> Table:
    """All studies in one table for CSV, a row for each pair, unrounded."""
    limits = [f"{name.lower()}{end}" for name in _COEFFICIENTS for end in ("", "_low", "_high")]
    rows = []
    for study in found:
        for pair in study.pairs:
            outcome = f"robust error, {study.attack}" if pair.outcome == _ERROR else pair.outcome
            row: list[object] = [study.title, pair.measure, outcome, len(pair.x)]
            for value, interval in _coefficients(pair.found):
                row += [value, *((interval.low, interval.high) if interval else (None, None))]
            rows.append(row)
    return Table.of(["data_and_threat", "measure", "outcome", "models", *limits], rows)


_COEFFICIENTS = ("Pearson", "Spearman", "Kendall")


def _table(study: Study) -> Table:
    columns = [names("Measure"), text("Outcome"), Column("n"), *map(Column, _COEFFICIENTS)]
    rows = [
        [
            *map(Cell, pair.labels),
            Cell(str(len(pair.x))),
            *(_cell(value, interval) for value, interval in _coefficients(pair.found)),
        ]
        for pair in study.pairs
    ]
    measured = [pair.measure for pair in study.pairs]
    sections = [at for at in range(1, len(rows)) if measured[at] != measured[at - 1]]
    title = f"{study.title}: {study.models} models"
    return Table(columns, rows, title, notes=_notes(study), sections=sections)


def _coefficients(found: Correlation | None) -> list[tuple[float | None, Interval | None]]:
    if found is None:
        return [(None, None)] * 3
    return [
        (found.pearson, found.pearson_interval),
        (found.spearman, found.spearman_interval),
        (found.kendall, found.kendall_interval),
    ]


def _cell(value: float | None, interval: Interval | None) -> Cell:
    if value is None:
        return MISSING
    spread = "" if interval is None else f"[{interval.low:+.2f}, {interval.high:+.2f}]"
    return Cell(f"{value:+.2f}", spread, value=value)


def _notes(study: Study) -> list[str]:
    notes = [
        f"Robust error is that under {study.attack}. Brackets: 95 % bootstrap intervals over the "
        "models, as if they were a random sample."
    ]
    if study.models < 5:
        notes.append("Fewer than five models: there are no intervals.")
    if study.architectures > 1:
        notes.append(
            f"{study.architectures} architectures: WCI, traces and eigenvalues depend on them, so "
            "that part of a correlation may be the architectures'."
        )
    return notes
