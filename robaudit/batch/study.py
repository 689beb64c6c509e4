"""How weight-space measures and robustness go together over the models of a run.

As the tables and figures of "Relating Adversarially Robust Generalization to Flat Minima" (Stutz,
Hein & Schiele, ICCV 2021) and of the paper on the Weight-Curvature Index do for theirs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as Drawn
from rich.text import Text

from robaudit.batch.directory import State
from robaudit.batch.leaderboard import Entry, Table, tables
from robaudit.errors import UsageError
from robaudit.report.text import csv_cell, markdown
from robaudit.schema import Interval
from robaudit.statistics.correlations import Correlation, correlation

MEASURES = {
    "wci": "WCI",
    "trace.total": "trace",
    "weights.frobenius": "weight norm",
    "trh.top_layer": "top-layer TrH",
    "hessian.trace": "Hessian trace",
    "hessian.largest": "largest eigenv.",
    "hessian.relative_largest": "relative eigenv.",
    "flatness.average": "avg. flatness",
    "flatness.worst": "worst flatness",
}
OUTCOMES = {
    "loss.robust": "robust loss",
    "error": "robust error",
    "gap.loss": "loss gap",
    "gap.error": "error gap",
}
_FEWEST = 3


@dataclass(frozen=True)
class Pair:
    """A measure and an outcome over the models that have both.

    Attributes:
        names: the models', as long as ``x`` and ``y``.
        found: ``None`` where one of the two does not vary.
    """

    measure: str
    outcome: str
    names: tuple[str, ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    found: Correlation | None


@dataclass(frozen=True)
class Study:
    """The models measured on the same examples within the same threat model.

    Attributes:
        attack: that the robust error is of.
        architectures: how many; curvature depends on them.
    """

    title: str
    attack: str
    models: int
    architectures: int
    pairs: list[Pair] = field(default_factory=list)


def studies(state: State) -> list[Study]:
    """One study for each data set and threat model that has models enough.

    A model that is listed twice counts once.

    Raises:
        UsageError: nowhere are there three finished models.
    """
    found = []
    for table in tables(state):
        hashes = {row.job.source: row.key for row in state.rows}
        entries: dict[str, Entry] = {}
        for entry in table.entries:
            if entry.result is not None:
                entries.setdefault(hashes[entry.source], entry)
        if len(entries) >= _FEWEST:
            found.append(_study(table, list(entries.values())))
    if not found:
        raise UsageError(
            "a correlation takes three finished models of the same data and threat model",
            "Look with: robaudit batch status.",
        )
    return found


def _study(table: Table, entries: list[Entry]) -> Study:
    values = {name: [_value(entry, name) for entry in entries] for name in (*MEASURES, *OUTCOMES)}
    pairs = []
    for measure in MEASURES:
        for outcome in OUTCOMES:
            rows = [
                (entry.name, x, y)
                for entry, x, y in zip(entries, values[measure], values[outcome], strict=True)
                if x is not None and y is not None
            ]
            if len(rows) < _FEWEST:
                continue
            names, x, y = zip(*rows, strict=True)
            pairs.append(Pair(measure, outcome, names, x, y, correlation(x, y)))
    architectures = {entry.result.architecture for entry in entries if entry.result}
    return Study(table.title, table.attack, len(entries), len(architectures), pairs)


def _value(entry: Entry, name: str) -> float | None:
    assert entry.result is not None
    if name == "error":
        robust = None if entry.robust is None else entry.robust.value
        return None if robust is None else 1 - robust
    return entry.result.value(name)


def study_view(found: Sequence[Study]) -> RenderableType:
    """For a terminal: a row a pair, its three coefficients with their intervals."""
    parts: list[RenderableType] = []
    for study in found:
        drawn = Drawn(
            box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", padding=(0, 1, 0, 0)
        )
        for heading in _HEADINGS:
            right = heading not in _HEADINGS[:2]
            drawn.add_column(heading, justify="right" if right else "left", no_wrap=right)
        for pair, after in zip_longest(study.pairs, study.pairs[1:]):
            ends = after is None or after.measure != pair.measure
            drawn.add_row(*(Text(text) for text in _cells(pair)), end_section=ends)
        title = f"{study.title}: {study.models} models"
        parts += [Text(title, style="bold"), Text(), drawn]
        parts += [Text(f"  {text}", style="dim") for text in _notes(study)]
        parts.append(Text())
    return Group(*parts)


def study_markdown(found: Sequence[Study]) -> str:
    """One markdown document with a table for each data set and threat model."""
    lines = ["# Study"]
    for study in found:
        lines += ["", f"## {markdown(study.title)}: {study.models} models", ""]
        lines += [f"| {' | '.join(_HEADINGS)} |", "| --- | --- | ---: | ---: | ---: | ---: |"]
        lines += [
            f"| {' | '.join(markdown(cell) for cell in _cells(pair))} |" for pair in study.pairs
        ]
        lines += ["", *(f"- {markdown(text)}" for text in _notes(study))]
    return "\n".join(lines) + "\n"


def study_csv(found: Sequence[Study]) -> str:
    """One row a pair, unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    coefficients = ("pearson", "spearman", "kendall")
    limits = [f"{name}{part}" for name in coefficients for part in ("", "_low", "_high")]
    writer.writerow(["data_and_threat", "measure", "outcome", "models", *limits])
    for study in found:
        for pair in study.pairs:
            numbers: list[float | None] = []
            for value, interval in _coefficients(pair.found):
                low, high = (interval.low, interval.high) if interval else (None, None)
                numbers += [value, low, high]
            outcome = f"robust error, {study.attack}" if pair.outcome == "error" else pair.outcome
            names = (study.title, pair.measure, outcome)
            writer.writerow([*(csv_cell(name) for name in names), len(pair.x), *numbers])
    return text.getvalue()


_HEADINGS = ("Measure", "Outcome", "n", "Pearson", "Spearman", "Kendall")


def _cells(pair: Pair) -> list[str]:
    numbers = [_shown(value, interval) for value, interval in _coefficients(pair.found)]
    return [MEASURES[pair.measure], OUTCOMES[pair.outcome], str(len(pair.x)), *numbers]


def _coefficients(
    found: Correlation | None,
) -> list[tuple[float | None, Interval | None]]:
    if found is None:
        return [(None, None)] * 3
    return [
        (found.pearson, found.pearson_interval),
        (found.spearman, found.spearman_interval),
        (found.kendall, found.kendall_interval),
    ]


def _shown(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "-"
    around = "" if interval is None else f" [{interval.low:+.2f}, {interval.high:+.2f}]"
    return f"{value:+.2f}{around}"


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
