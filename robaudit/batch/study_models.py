"""Which models of a study belong together: groups, and sets that differ in one hyper-parameter."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from robaudit.batch.directory import ListedJob
from robaudit.batch.leaderboard import RankedModel
from robaudit.report.curve_axis import EPOCH
from robaudit.schema import Report

# No hyper-parameter: models that differ in it differ by chance.
_CHANCE = "seed"


@dataclass(frozen=True)
class StudyModel:
    """A model of a study.

    Attributes:
        group: models of one group are alike for another reason than chance: checkpoints of one
            training run, or what a manifest calls a group.
        stratum: its architecture.
        settings: its hyper-parameters; empty where they are not known.
    """

    ranked: RankedModel
    report: Report
    group: str
    stratum: str
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As in the leaderboard."""
        return self.ranked.name


def study_models(ranked: Sequence[tuple[RankedModel, ListedJob]]) -> list[StudyModel]:
    """The models by group, and within a group by epoch: never by an outcome."""
    found = []
    for model, row in ranked:
        if model.report is None:
            continue
        source, architecture = row.job.source, model.report.subject.architecture
        folder, epoch = _place(row, model.report)
        group = row.job.group or row.run or (f"{folder} {architecture}" if folder else source)
        settings = {**row.recorded, **dict(row.job.hyperparameters)}
        one = StudyModel(model, model.report, group, architecture, settings)
        found.append((group, epoch, model.name, one))
    return [one for *_, one in sorted(found, key=lambda place: place[:3])]


def _place(row: ListedJob, report: Report) -> tuple[str, float]:
    """What the files of a run's other epochs have in common with this one, and its epoch.

    That is the path with the epoch left out of the name: the number after "epoch", or the number
    that the file records. ``""`` for a file without an epoch in its name.
    """
    path, recorded = PurePath(row.job.source), report.subject.epoch
    epoch = recorded if recorded is not None else 0.0
    if found := EPOCH.search(path.stem):
        at, epoch = found.span(1), float(found[1])
    elif recorded is not None:
        same = [one for one in re.finditer(r"\d+", path.stem) if float(one[0]) == recorded]
        if not same:
            return "", epoch
        at = same[-1].span()
    else:
        return "", epoch
    name = f"{path.stem[: at[0]]}*{path.stem[at[1] :]}{path.suffix}"
    return str(path.with_name(name)), epoch


@dataclass(frozen=True)
class Matched:
    """Sets of models that differ in one hyper-parameter only.

    Attributes:
        sets: for each hyper-parameter, the places of the models of each set.
        reason: why there are none.
    """

    sets: Mapping[str, list[list[int]]]
    reason: str = ""


def matched(settings: Sequence[Mapping[str, Any]]) -> Matched:
    """The sets of models that agree in all hyper-parameters but one, two models or more each.

    A table of settings that some models lack, or that is of another ``kind`` for some, is one
    hyper-parameter; else each of its entries is one. The seed is held fixed, and is none itself.
    """
    places = [at for at, own in enumerate(settings) if own]
    if len(places) < 2:
        return Matched({}, "the hyper-parameters of the models are not known")
    rows = _flat([settings[at] for at in places])
    varying = [key for key in rows[0] if len({row[key] for row in rows}) > 1]
    if len({tuple(row[key] for key in varying) for row in rows}) < len(rows):
        return Matched({}, "some models have the same hyper-parameters")
    sets: dict[str, list[list[int]]] = {}
    for key in varying:
        others = [other for other in varying if other != key]
        alike: dict[tuple[str, ...], list[int]] = {}
        for at, row in zip(places, rows, strict=True):
            alike.setdefault(tuple(row[other] for other in others), []).append(at)
        own = [members for members in alike.values() if len(members) > 1]
        if own and key != _CHANCE:
            sets[key] = own
    if not sets:
        return Matched({}, "no two models differ in one hyper-parameter only")
    return Matched(sets)


def _flat(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Hyper-parameters by name, as texts that can be compared; the same names for all models."""
    keys = sorted({key for own in settings for key in own})
    rows: list[dict[str, str]] = [{} for _ in settings]
    for key in keys:
        values = [own.get(key) for own in settings]
        tables: list[dict[str, Any]] = [value for value in values if isinstance(value, dict)]
        kinds = {_text((sorted(value), value.get("kind"))) for value in tables}
        if len(tables) == len(values) and len(kinds) == 1:
            for row, table in zip(rows, tables, strict=True):
                row |= {f"{key}.{name}": _text(one) for name, one in table.items()}
        else:
            for row, value in zip(rows, values, strict=True):
                row[key] = _text(value)
    return rows


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)
