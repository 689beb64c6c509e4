"""Correlations of measures with robustness over the models of a run.

As the tables and figures of "Relating Adversarially Robust Generalization to Flat Minima" (Stutz,
Hein & Schiele, ICCV 2021) and of the paper on the Weight-Curvature Index, for their models; with
the partial and granulated coefficients of "Fantastic generalization measures and where to find
them" (Jiang et al., ICLR 2020) and Dziugaite et al., "In search of robust measures of
generalization" (NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from robaudit import measures
from robaudit.batch.directory import ListedJob, State
from robaudit.batch.leaderboard import Leaderboard, RankedModel, leaderboards
from robaudit.batch.study_models import Matched, StudyModel, matched, study_models
from robaudit.errors import UsageError, did_you_mean
from robaudit.schema import Measurement
from robaudit.statistics.correlations import Correlation, correlation
from robaudit.statistics.permutation import (
    FEWEST_ARRANGEMENTS,
    arrangements,
    holm,
    permutation_p_value,
)
from robaudit.statistics.weighted import Sets

ERROR = "error"  # one minus the accuracy that models are ranked by
GIVEN, PARAMETERS = "accuracy.clean", "parameters"
_FEWEST = 3


@dataclass(frozen=True)
class Pair:
    """A measure and an outcome over the models that have both.

    Attributes:
        measure: its name in reports; ``outcome`` likewise, or ``error``.
        labels: of the measure and of the outcome, in words.
        names: of the models, as long as ``x`` and ``y``.
        groups: of the models.
        x, y: the measure's and the outcome's value for each model.
        found: ``None`` where one of the two is constant.
        p_value: of a permutation test of Spearman's coefficient; ``None`` where there is none.
        corrected: Holm's correction of it for all pairs of the study.
        shared: whether both are estimated from the same examples, so that their noise is alike.
        noise: where it is shared, at most how much of Pearson's coefficient that noise can be;
            ``None`` where a standard error is not known.
    """

    measure: str
    outcome: str
    labels: tuple[str, str]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    found: Correlation | None
    p_value: float | None = None
    corrected: float | None = None
    shared: bool = False
    noise: float | None = None

    @property
    def influential(self) -> str:
        """The model that moves Spearman's coefficient most."""
        at = None if self.found is None else self.found.spearman.influential
        return "" if at is None else self.names[at]


@dataclass(frozen=True)
class Study:
    """The models measured on the same examples within the same threat model.

    Attributes:
        attack: of the robust error.
        models: how many.
        groups: how many groups of models that are alike, such as checkpoints of one training run.
        architectures: how many; curvature depends on them.
        within: whether the permutation tests exchange groups of one architecture only.
        given: what the partial coefficients hold fixed, in words.
        matched: sets of models that differ in one hyper-parameter only.
        known: how many models' hyper-parameters are known.
    """

    title: str
    attack: str
    models: int
    architectures: int
    groups: int = 0
    within: bool = False
    given: str = ""
    matched: Matched = field(default_factory=lambda: Matched({}))
    known: int = 0
    pairs: list[Pair] = field(default_factory=list)


def studies(state: State, given: str = GIVEN) -> list[Study]:
    """One study for each data set and threat model that has three models or more.

    A model that is listed twice counts once.

    Args:
        given: what partial coefficients hold fixed: a measure, or ``parameters``.

    Raises:
        UsageError: there is none, or no such measure.
        DataError: a report cannot be read.
    """
    known = [row.name for row in measures.known()]
    if given not in (PARAMETERS, *known):
        raise UsageError(
            f"--given {given}: no such measure{did_you_mean(given, known)}",
            f"The name of a measure in reports, or {PARAMETERS}.",
        )
    found = []
    rows = {row.job.source: row for row in state.rows}
    for board in leaderboards(state):
        models: dict[str, tuple[RankedModel, ListedJob]] = {}
        for model in board.models:
            if model.report is not None:
                models.setdefault(rows[model.source].key, (model, rows[model.source]))
        if len(models) >= _FEWEST:
            found.append(_study(board, study_models(list(models.values())), given))
    if not found:
        raise UsageError(
            "a correlation takes three finished models of the same data and threat model",
            "Look with: robaudit batch status.",
        )
    return found


def _study(board: Leaderboard, models: list[StudyModel], given: str) -> Study:
    registered = [row for row in measures.known() if row.study]
    inputs = {row.name: row.study for row in registered if not row.outcome}
    outcomes = {ERROR: "robust error"}
    outcomes |= {row.name: row.study for row in registered if row.outcome}
    values = {name: [_measured(model, name) for model in models] for name in inputs | outcomes}
    held = [_given(model, given) for model in models]
    sets = matched([model.settings for model in models])
    within = _within_architectures(models)
    pairs = []
    for measure, label in inputs.items():
        for outcome, outcome_label in outcomes.items():
            both = zip(values[measure], values[outcome], strict=True)
            rows = [(k, x, y) for k, (x, y) in enumerate(both) if x and y]
            if len(rows) < _FEWEST or measure == outcome:
                continue
            at, x, y = zip(*rows, strict=True)
            pair = _pair(measure, outcome, x, y, [models[k] for k in at], within)
            coefficients = correlation(
                pair.x,
                pair.y,
                groups=pair.groups,
                given=None if None in (c := [held[k] for k in at]) else c,
                sets=_kept(sets, at),
            )
            pairs.append(replace(pair, labels=(label, outcome_label), found=coefficients))
    corrected = holm([pair.p_value for pair in pairs])
    return Study(
        board.title,
        board.attack,
        len(models),
        len({model.stratum for model in models}),
        len({model.group for model in models}),
        within,
        "parameters" if given == PARAMETERS else measures.find(given).label.lower(),
        sets,
        sum(bool(model.settings) for model in models),
        [replace(pair, corrected=p) for pair, p in zip(pairs, corrected, strict=True)],
    )


def _within_architectures(models: Sequence[StudyModel]) -> bool:
    """Whether exchanging groups of one architecture only leaves enough arrangements for a test."""
    strata = [model.stratum for model in models]
    groups = [model.group for model in models]
    alike = len(set(zip(groups, strata, strict=True))) == len(set(groups))
    return alike and len(set(strata)) > 1 and arrangements(groups, strata) >= FEWEST_ARRANGEMENTS


def _kept(sets: Matched, at: Sequence[int]) -> Sets:
    """The sets of models among those at these places, by their new places."""
    place = {old: new for new, old in enumerate(at)}
    kept = [[[place[k] for k in one if k in place] for one in own] for own in sets.sets.values()]
    found = [[one for one in own if len(one) > 1] for own in kept]
    return [own for own in found if own]


def _measured(model: StudyModel, name: str) -> Measurement | None:
    found = model.ranked.robust if name == ERROR else model.report.get(name)
    return found if found is not None and found.value is not None else None


def _given(model: StudyModel, given: str) -> float | None:
    if given == PARAMETERS:
        return float(model.report.subject.parameters)
    found = model.report.get(given)
    return None if found is None else found.value


def _pair(
    measure: str,
    outcome: str,
    x: Sequence[Measurement],
    y: Sequence[Measurement],
    models: Sequence[StudyModel],
    within: bool,
) -> Pair:
    a, b = (np.array([one.value for one in column], dtype=float) for column in (x, y))
    if outcome == ERROR:
        b = 1 - b
    estimated = all(measures.find(name).error_bar != "exact" for name in (measure, y[0].name))
    shared = estimated and y[0].split in ("gap", x[0].split)
    groups = [model.group for model in models]
    strata = [model.stratum for model in models] if within else None
    return Pair(
        measure,
        outcome,
        (measure, outcome),
        tuple(model.name for model in models),
        tuple(groups),
        tuple(a.tolist()),
        tuple(b.tolist()),
        None,
        permutation_p_value(a.tolist(), b.tolist(), groups, strata),
        shared=shared,
        noise=_product(_noise(x, a), _noise(y, b)) if shared else None,
    )


def _noise(measurements: Sequence[Measurement], values: NDArray[np.float64]) -> float | None:
    """The standard error as a share of the standard deviation over the models."""
    errors = [one.standard_error for one in measurements]
    spread = float(values.std(ddof=1))
    if spread == 0 or any(error is None for error in errors):
        return None
    return float(np.sqrt(np.mean(np.square(np.array(errors, dtype=float))))) / spread


def _product(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else min(1.0, a * b)
