"""Attack by attack: what it was, what it cost, what each of its parts left standing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from robaudit.report.details import RadiusRow, robustness_curves
from robaudit.report.facts import settings_text
from robaudit.report.html.charts import Point, Series, bar, lines, whisker
from robaudit.report.html.table import Table, table
from robaudit.report.numbers import percent, shown
from robaudit.report.radii import curve_cells
from robaudit.report.words import ATTACKS, attack, interval_heading, label, ordered
from robaudit.schema import Measurement, Report
from robaudit.types import radius

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
    """An attack made of several: what each part left standing, and what was seen on the way."""

    name: str
    stages: Table
    diagnostics: str


def attacked(report: Report) -> list[Measurement]:
    """Accuracies under attack that were measured on the audited split, the smallest first."""
    found = [m for name in ATTACKS if (m := report.get(name)) is not None and m.value is not None]
    found.sort(key=lambda m: (m.value, m.name != "accuracy.autoattack"))
    return found


def accuracies(report: Report) -> Table | None:
    """Every accuracy with its interval, as numbers and drawn on one scale."""
    rows = [
        (
            f"{label(m)} ({m.split})" if m.split != report.data.split else label(m),
            whisker(m.value, m.interval.low, m.interval.high, int(m.name != "accuracy.clean")),
            stacked(shown(m).value, shown(m).spread),
            "" if m.n is None else str(m.n),
        )
        for m in ordered(report)
        if m.name.startswith("accuracy.") and m.value is not None and m.interval is not None
    ]
    if not rows:
        return None
    headings = ("Accuracy", "0 to 100 %", f"%, {interval_heading(report)}", "n")
    return table("Accuracies and their intervals", headings, rows, " wrr")


def radii(report: Report) -> tuple[Markup, Table] | None:
    """Accuracy over eps, drawn and as numbers; ``None`` where one radius was attacked."""
    curves = {name: rows for name, rows in robustness_curves(report).items() if rows}
    headings, cells = curve_cells(report)
    if not curves or not cells:
        return None
    clean = report.get("accuracy.clean")
    start = []
    if clean is not None and clean.value is not None and clean.interval is not None:
        start = [Point(0, clean.value, clean.interval.low, clean.interval.high)]
    series = [
        Series(attack(m), [*start, *map(_point, rows)])
        for name, rows in curves.items()
        if (m := report.get(name)) is not None
    ]
    series = [_percent(one) for one in series]
    eps = sorted({row.eps for rows in curves.values() for row in rows})
    places = [(0.0, "0"), *((at, radius(at)) for at in eps)]
    assert report.threat is not None
    picture = lines(
        "Accuracy within each radius", series, f"radius eps, {report.threat.norm}", "accuracy, %",
        y_range=(0, 100), x_ticks=places,
    )  # fmt: skip
    rows = [
        (line[0], *(stacked(*pair) for pair in zip(line[1::2], line[2::2], strict=True)))
        for line in cells
    ]
    names = (headings[0], *headings[1::2])
    return picture, table("Accuracy within each radius, %", names, rows, "r" * len(names))


def attack_table(report: Report) -> Table | None:
    """What each attack was, what it found and what it cost."""
    found = _audited(report)
    rows = [
        (
            attack(m),
            stacked(shown(m).value, shown(m).spread),
            _described(m),
            _count(m.details.get("forwards")),
            _count(m.details.get("backwards")),
            "" if m.seconds is None else f"{m.seconds:.1f}",
        )
        for m in found
    ]
    headings = ("Attack", "Accuracy, %", "Settings", "Forwards", "Backwards", "Seconds")
    return (
        table("Attacks and what they cost, in images", headings, rows, " r rrr") if rows else None
    )


def ensembles(report: Report) -> list[Ensemble]:
    """The attacks that are made of several, in reading order."""
    return [
        Ensemble(attack(m), stages, _diagnostics(m))
        for m in _audited(report)
        if (stages := _stages(m)) is not None
    ]


def stacked(value: str, spread: str) -> Markup:
    """A number with its interval below it."""
    return Markup('{} <span class="spread">{}</span>').format(value, spread)


def _audited(report: Report) -> list[Measurement]:
    return [
        m
        for m in ordered(report)
        if m.name in ATTACKS and m.split == report.data.split and m.status == "ok"
    ]


def _described(m: Measurement) -> str:
    engine = m.details.get("engine")
    run_with = ", ".join(map(str, engine)) if isinstance(engine, list) else ""
    return "; ".join(text for text in (settings_text(m), run_with) if text)


def _diagnostics(m: Measurement) -> str:
    found = m.details.get("diagnostics")
    if not isinstance(found, dict):
        return ""
    known = {key: found[key] for key in _DIAGNOSTICS if isinstance(found.get(key), int)}
    return "; ".join(f"{count} {_DIAGNOSTICS[key]}" for key, count in known.items())


def _stages(m: Measurement) -> Table | None:
    left, passes = m.details.get("attacks"), m.details.get("passes")
    if not isinstance(left, dict) or not left or not all(map(_share, left.values())):
        return None
    counted = passes if isinstance(passes, dict) else {}
    rows = []
    for name, standing in left.items():
        cost = counted.get(name)
        forwards, backwards = cost if isinstance(cost, list) and len(cost) == 2 else (None, None)
        cells = (str(name), bar(standing), percent(standing), _count(forwards), _count(backwards))
        rows.append(cells if counted else cells[:3])
    headings = ("Part", "Left standing", "", "Forwards", "Backwards")[: len(rows[0])]
    return table(f"What {attack(m)} left standing, part after part", headings, rows, " wrrr")


def _share(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _point(row: RadiusRow) -> Point:
    return Point(row.eps, row.value, row.low, row.high)


def _percent(one: Series) -> Series:
    scaled = [Point(p.x, 100 * p.y, 100 * p.low, 100 * p.high) for p in one.points]
    return Series(one.name, scaled)
