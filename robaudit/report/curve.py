"""Measurements over checkpoints: points on an axis, their table, and their CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from robaudit.errors import UsageError
from robaudit.notebook import html
from robaudit.report.curve_axis import Axis, axis_of, shown_place
from robaudit.report.differences import architectures_differ, differing, gone, settings_differ
from robaudit.report.naming import names_of, subject_cells
from robaudit.report.numbers import number
from robaudit.report.sparkline import sparkline
from robaudit.report.table import MISSING, Cell, Column, Table, estimate, names, text
from robaudit.schema import Report

if TYPE_CHECKING:
    from robaudit.statistics.correlations import Correlation

_FEWEST, _MOST = 4, 60  # points whose course is easier to see in a line of blocks than in a column
_ERRORS = (
    "±: one standard error over examples. Differences between checkpoints that were measured on "
    "the same examples are more certain than these errors suggest."
)


@dataclass(frozen=True)
class Quantity:
    """One number of every checkpoint.

    Attributes:
        key: its name in CSV.
        measurement: the measurement that it is.
        split: ``None`` for the audited one.
        heading: of its column; ``""`` where only CSV holds it.
        group: the title over its column.
        factor: by which it is shown: 100 for points.
        course: its name where its rise and fall is drawn in one line; ``""`` where it is not.
        squared: it is the square of the measurement, and has no standard error.
        exact: CSV has no column for its standard error.
    """

    key: str
    measurement: str
    split: str | None = None
    heading: str = ""
    group: str = ""
    factor: float = 1
    course: str = ""
    squared: bool = False
    exact: bool = False


@dataclass(frozen=True)
class Number:
    """A value and its standard error, ``None`` where there is none."""

    value: float
    standard_error: float | None = None


@dataclass(frozen=True)
class Point:
    """One checkpoint.

    Attributes:
        place: on the axis.
        report: ``None`` for a checkpoint that could not be audited.
        numbers: by the keys of the curve's quantities; what was not measured is left out.
    """

    source: str
    name: str
    place: float
    report: Report | None
    numbers: Mapping[str, Number]


@dataclass(frozen=True)
class Curve:
    """Points in the order of their places, which all differ.

    Attributes:
        subject: the columns of CSV that say which checkpoint it is, on which examples.
        correlations: with the robust loss over the checkpoints, by the key of a quantity.
    """

    axis: Axis
    points: tuple[Point, ...]
    quantities: tuple[Quantity, ...]
    subject: tuple[str, ...]
    notes: tuple[str, ...] = ()
    correlations: Mapping[str, Correlation] = field(default_factory=dict)

    def column(self, key: str) -> list[Number | None]:
        """One number a point, ``None`` for a gap."""
        return [point.numbers.get(key) for point in self.points]

    def has(self, key: str) -> bool:
        """Whether some point has that number."""
        return any(key in point.numbers for point in self.points)

    @property
    def reports(self) -> list[Report]:
        """Those of the checkpoints that could be audited."""
        return [point.report for point in self.points if point.report]

    @property
    def connected(self) -> bool:
        """Whether the checkpoints are of one run, so that a line between them has a meaning."""
        return self.axis.by != "order" and not architectures_differ(self.reports)

    _repr_html_ = html


def points_of(
    checkpoints: Sequence[Report | str], quantities: Sequence[Quantity]
) -> tuple[Axis, tuple[Point, ...], list[str]]:
    """The axis, the points in its order, and a note where that needs one.

    Args:
        checkpoints: in the order given: a report, or the source of a checkpoint that could not be
            audited and leaves a gap.

    Raises:
        UsageError: no checkpoints.
    """
    if not checkpoints:
        raise UsageError("a curve needs at least one report")
    audited = [None if isinstance(given, str) else given for given in checkpoints]
    sources = [given if isinstance(given, str) else given.subject.source for given in checkpoints]
    axis = axis_of(sources, [report.subject.epoch if report else None for report in audited])
    named = names_of([one if isinstance(one, str) else one.subject for one in checkpoints])
    points = [
        Point(source, name, place, report, {} if report is None else _numbers(report, quantities))
        for source, name, place, report in zip(sources, named, axis.places, audited, strict=True)
    ]
    ordered = tuple(sorted(points, key=lambda point: point.place))
    notes = []
    if axis.by == "order":
        notes = ["No number tells the checkpoints apart: they are in the order given."]
    elif list(ordered) != points:
        where = "its name" if axis.by == "name" else "its file"
        notes = [f"By the {axis.name} in {where}, not in the order given."]
    return Axis(axis.name, tuple(point.place for point in ordered), axis.by), ordered, notes


def _numbers(report: Report, quantities: Sequence[Quantity]) -> dict[str, Number]:
    found = {}
    for quantity in quantities:
        m = report.get(quantity.measurement, quantity.split)
        if m is not None and m.value is not None:
            found[quantity.key] = (
                Number(m.value**2) if quantity.squared else Number(m.value, m.standard_error)
            )
    return found


def unlike(points: Sequence[Point], made: Mapping[str, str]) -> list[str]:
    """What keeps the points from being compared.

    Args:
        made: in words, by measurement, what was done with different settings.
    """
    reports = [point.report for point in points if point.report]
    different = differing(reports)
    notes = [f"{different}: the rows are of different things."] if different else []
    return notes + [
        f"{words} with different settings."
        for name, words in made.items()
        if settings_differ(reports, name)
    ]


def missing(points: Sequence[Point]) -> list[str]:
    """The checkpoints without a report, and what the others' reports lack."""
    lost = [point.name for point in points if point.report is None]
    notes = [f"Could not be audited, a gap in the curve: {', '.join(lost)}."] if lost else []
    there = [(point.name, point.report) for point in points if point.report]
    return notes + gone([name for name, _ in there], [report for _, report in there])


def curve_tables(curve: Curve, drawn: bool = False) -> list[Table]:
    """One row a checkpoint, with the notes.

    Args:
        drawn: with a table in which the course of each quantity is drawn in one line.
    """
    shown = [one for one in curve.quantities if one.heading and curve.has(one.key)]
    labels = _labels(curve)
    rows = [
        [
            *(Cell(cells[at]) for _, cells in labels),
            *(_cell(point.numbers.get(one.key), one.factor) for one in shown),
        ]
        for at, point in enumerate(curve.points)
    ]
    columns = [Column(one.heading, group=one.group) for one in shown]
    table = Table([*(column for column, _ in labels), *columns], rows)
    errors = any(n.standard_error for point in curve.points for n in point.numbers.values())
    notes = [Table(notes=[*([_ERRORS] if errors else []), *curve.notes])]
    courses = _courses(curve) if drawn else []
    return [table, *courses, *(one for one in notes if one.notes)]


def _cell(found: Number | None, factor: float) -> Cell:
    return MISSING if found is None else estimate(found.value, found.standard_error, factor)


def _labels(curve: Curve) -> list[tuple[Column, list[str]]]:
    """The axis where it is more than an order; the names where they say more than the axis."""
    places = [shown_place(point.place) for point in curve.points]
    axis = Column(curve.axis.name.capitalize(), names=True), places
    name = names("Model"), [point.name for point in curve.points]
    return {"name": [axis], "file": [axis, name], "order": [name]}[curve.axis.by]


def _courses(curve: Curve) -> list[Table]:
    if not _FEWEST <= len(curve.points) <= _MOST or curve.axis.by == "order":
        return []
    rows = []
    for quantity in curve.quantities:
        values = [None if one is None else one.value for one in curve.column(quantity.key)]
        known = [value for value in values if value is not None]
        if not quantity.course or len(known) < _FEWEST or min(known) == max(known):
            continue
        low, high = (number(quantity.factor * end, 3) for end in (min(known), max(known)))
        blocks = Cell(sparkline(values), tone="accent")
        rows.append([Cell(quantity.course), blocks, Cell(f"{low} to {high}", tone="soft")])
    return [Table([names(), Column(align="left"), text()], rows)] if rows else []


def curve_data(curve: Curve) -> Table:
    """For CSV: one row a checkpoint in the curve's order, each number with its standard error.

    An empty cell is a number that was not measured. Fractions are fractions.
    """
    header = ["axis", "place", *curve.subject]
    for one in curve.quantities:
        header += [one.key] if one.exact else [one.key, f"{one.key}_standard_error"]
    rows = []
    for point in curve.points:
        row = {"axis": curve.axis.name, "place": shown_place(point.place), **_subject(point)}
        for key, found in point.numbers.items():
            row |= {key: found.value, f"{key}_standard_error": found.standard_error}
        rows.append([row.get(name) for name in header])
    return Table.of(header, rows)


def _subject(point: Point) -> dict[str, object]:
    report = point.report
    if report is None:
        return {"subject": point.source}
    splits = [data for data in (report.data, report.train_data) if data is not None]
    return {
        **subject_cells(report),
        "n": report.data.n,
        **{f"n_{data.split}": data.n for data in splits if data.split in ("test", "train")},
    }
