"""Flatness over checkpoints, beside the robust loss and the largest eigenvalue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from robaudit.errors import DataError, UsageError
from robaudit.report.curve import Number
from robaudit.report.curve_axis import Axis, axis_of
from robaudit.report.differences import architectures_differ, differing, gone, settings_differ
from robaudit.report.naming import names_of
from robaudit.report.text import plain
from robaudit.schema import Interval, Measurement, Report
from robaudit.statistics.correlations import Correlation, correlation


class SweepRow(BaseModel):
    """Flatness within one relative radius; ``perturbations`` where random ones were drawn."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    xi: float
    value: float
    standard_error: float | None = None
    perturbations: int | None = None


_SWEEP = TypeAdapter(list[SweepRow])


def sweep_rows(measurement: Measurement) -> list[SweepRow]:
    """Flatness within ascending radii; empty where one radius was measured.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    table = measurement.details.get("sweep")
    if table is None:
        return []
    try:
        return _SWEEP.validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"the sweep of {plain(measurement.name)} cannot be read: "
            f"{plain(place)}: {plain(first['msg'])}"
        ) from None


@dataclass(frozen=True)
class FlatnessPoint:
    """One checkpoint; ``report`` is ``None`` for one that could not be audited."""

    source: str
    name: str
    place: float
    report: Report | None
    numbers: Mapping[str, Number]


@dataclass(frozen=True)
class FlatnessCurve:
    """Points in the order of their places.

    Attributes:
        correlations: of a flatness with the robust loss over the models, by the flatness's name.
    """

    axis: Axis
    points: tuple[FlatnessPoint, ...]
    correlations: Mapping[str, Correlation]
    notes: tuple[str, ...]

    def column(self, quantity: str) -> list[Number | None]:
        """One number a point, ``None`` for a gap."""
        return [point.numbers.get(quantity) for point in self.points]

    def has(self, quantity: str) -> bool:
        return any(quantity in point.numbers for point in self.points)

    @property
    def connected(self) -> bool:
        """Whether one checkpoint became the next, so that a line between them says so."""
        reports = [point.report for point in self.points if point.report]
        return self.axis.by != "order" and not architectures_differ(reports)


# A curve's name for each number, and the measurement that it is.
QUANTITIES = {
    "loss_robust": "loss.robust",
    "flatness_average": "flatness.average",
    "flatness_worst": "flatness.worst",
    "hessian_largest": "hessian.largest",
    "hessian_relative_largest": "hessian.relative_largest",
    "flatness_clean_average": "flatness.clean_average",
    "flatness_clean_worst": "flatness.clean_worst",
    "loss_clean": "loss.clean",
    "accuracy_pgd": "accuracy.pgd",
}


def flatness_curve(checkpoints: Sequence[Report | str]) -> FlatnessCurve:
    """The curve through several checkpoints.

    Args:
        checkpoints: in the order given: a report, or the source of a checkpoint that could not be
            audited and leaves a gap.

    Raises:
        UsageError: no checkpoints.

    Source: Stutz, Hein & Schiele, ICCV 2021, Figures 1, 6 and 8.
    """
    if not checkpoints:
        raise UsageError("a curve needs at least one report")
    audited = [None if isinstance(given, str) else given for given in checkpoints]
    sources = [given if isinstance(given, str) else given.subject.source for given in checkpoints]
    axis = axis_of(sources, [report.subject.epoch if report else None for report in audited])
    names = names_of([one if isinstance(one, str) else one.subject for one in checkpoints])
    points = [
        FlatnessPoint(source, name, place, report, {} if report is None else _numbers(report))
        for source, name, place, report in zip(sources, names, axis.places, audited, strict=True)
    ]
    points.sort(key=lambda point: point.place)
    axis = Axis(axis.name, tuple(point.place for point in points), axis.by)
    found = {name: _together(points, name) for name in ("flatness_average", "flatness_worst")}
    return FlatnessCurve(
        axis,
        tuple(points),
        {name: one for name, one in found.items() if one is not None},
        tuple(_caveats(points, axis)),
    )


def _numbers(report: Report) -> dict[str, Number]:
    found = {}
    for key, name in QUANTITIES.items():
        m = report.get(name)
        if m is not None and m.value is not None:
            found[key] = Number(m.value, m.standard_error)
    return found


def _together(points: Sequence[FlatnessPoint], name: str) -> Correlation | None:
    """Over models that were measured alike: others do not compare."""
    if differing([point.report for point in points if point.report]):
        return None
    both = [p.numbers for p in points if p.numbers.keys() >= {name, "loss_robust"}]
    return correlation([n[name].value for n in both], [n["loss_robust"].value for n in both])


def _caveats(points: Sequence[FlatnessPoint], axis: Axis) -> list[str]:
    reports = [point.report for point in points if point.report]
    notes = []
    if axis.by == "order":
        notes.append("No number tells the checkpoints apart: they are in the order given.")
    if unlike := differing(reports):
        notes.append(f"{unlike}: the rows are of different things.")
    for name, words in (
        ("loss.robust", "PGD ran"),
        ("flatness.average", "Average flatness was measured"),
        ("flatness.worst", "Worst-case flatness was measured"),
    ):
        if settings_differ(reports, name):
            notes.append(f"{words} with different settings.")
    lost = [point.name for point in points if point.report is None]
    if lost:
        notes.append(f"Could not be audited, a gap in the curve: {', '.join(lost)}.")
    return notes + gone([point.name for point in points if point.report], reports)


def correlation_words(found: Correlation) -> list[str]:
    """Each coefficient with its interval, in words."""

    def one(name: str, value: float, interval: Interval | None) -> str:
        around = "" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]"
        return f"{name} {value:.2f}{around}"

    return [
        one("Pearson", found.pearson, found.pearson_interval),
        one("Spearman", found.spearman, found.spearman_interval),
        one("Kendall", found.kendall, found.kendall_interval),
    ]
