"""Tables of attacks: accuracy over the radius, what each attack cost, what its parts left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from robaudit.report.facts import settings_text
from robaudit.report.pictures.accuracies import parts, standing
from robaudit.report.pictures.drawing import inline
from robaudit.report.table import Cell, Column, Table, measured, names, text
from robaudit.report.words import attack, attack_names, ordered
from robaudit.schema import Measurement, Report

_DIAGNOSTICS = {
    "attacked": "images attacked",
    "zero_gradient": "with a zero gradient where the search began",
    "stuck": "on which no step raised the loss",
    "black_box_only": "broken only without gradients",
    "probed": "left standing and searched without gradients",
    "blindly_ahead": "taken further that way",
    "blindly_broken": "broken that way",
    "targets_missing": "targets missing for want of classes",
}


@dataclass(frozen=True)
class Ensemble:
    """An attack of several parts: what each part left standing, and what was counted meanwhile."""

    title: str
    picture: Markup
    diagnostics: str


def attack_table(report: Report) -> Table | None:
    """The settings of each attack, what it found and what it cost."""
    rows = [
        [
            Cell(attack(m)),
            measured(m),
            Cell(_settings(m)),
            _count(m.details.get("forwards")),
            _count(m.details.get("backwards")),
            Cell("" if m.seconds is None else f"{m.seconds:.1f}"),
        ]
        for m in _audited(report)
    ]
    numbers = (Column(heading) for heading in ("Forwards", "Backwards", "Seconds"))
    columns = [names("Attack"), Column("Accuracy, %"), text("Settings"), *numbers]
    return Table(columns, rows, "Attacks and what they cost, in images") if rows else None


def ensembles(report: Report) -> list[Ensemble]:
    """The attacks that have several parts, in reading order."""
    found: list[Ensemble] = []
    for m in _audited(report):
        if parts(m):
            title = f"What {attack(m)} left standing, part after part"
            picture = inline(standing(m), f"parts-{len(found)}", title)
            found.append(Ensemble(title, picture, _diagnostics(m)))
    return found


def _audited(report: Report) -> list[Measurement]:
    return [
        m
        for m in ordered(report)
        if m.name in attack_names() and m.split == report.data.split and m.status == "ok"
    ]


def _settings(m: Measurement) -> str:
    engine = m.details.get("engine")
    run_with = ", ".join(map(str, engine)) if isinstance(engine, list) else ""
    if run_with:
        run_with = f"searched with {run_with}, judged in float32"
    notes = m.details.get("engine_notes")
    refused = "; ".join(map(str, notes)) if isinstance(notes, list) else ""
    return "; ".join(text for text in (settings_text(m), run_with, refused) if text)


def _diagnostics(m: Measurement) -> str:
    found = m.details.get("diagnostics")
    if not isinstance(found, dict):
        return ""
    known = {key: found[key] for key in _DIAGNOSTICS if isinstance(found.get(key), int)}
    return "; ".join(f"{count} {_DIAGNOSTICS[key]}" for key, count in known.items())


def _count(value: Any) -> Cell:
    return Cell(f"{value:,}" if isinstance(value, int) else "")
