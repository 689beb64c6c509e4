"""WCI over checkpoints, beside the robust gaps and the parts it is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from robaudit.errors import UsageError
from robaudit.report.curve_axis import Axis, axis_of, shown_place
from robaudit.report.details import extra
from robaudit.report.differences import architectures_differ, differing, gone, settings_differ
from robaudit.report.naming import names_of
from robaudit.report.numbers import number
from robaudit.schema import Measurement, Report


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
        numbers: by :data:`QUANTITIES`; what was not measured is not there.
    """

    source: str
    name: str
    place: float
    report: Report | None
    numbers: Mapping[str, Number]


@dataclass(frozen=True)
class Curve:
    """Points in the order of their places, which all differ."""

    axis: Axis
    points: tuple[Point, ...]
    notes: tuple[str, ...]

    def column(self, quantity: str) -> list[Number | None]:
        """One number a point, ``None`` for a gap."""
        return [point.numbers.get(quantity) for point in self.points]

    def has(self, quantity: str) -> bool:
        return any(quantity in point.numbers for point in self.points)


# A curve's name for each number: the measurement and its split, or ``None`` for the audited one.
QUANTITIES: dict[str, tuple[str, str | None]] = {
    "wci_test": ("wci", "test"),
    "wci_train": ("wci", "train"),
    "wci_bound_test": ("wci.bound", "test"),
    "wci_bound_train": ("wci.bound", "train"),
    "loss_robust_test": ("loss.robust", "test"),
    "loss_robust_train": ("loss.robust", "train"),
    "accuracy_pgd_test": ("accuracy.pgd", "test"),
    "accuracy_pgd_train": ("accuracy.pgd", "train"),
    "gap_loss": ("gap.loss", "gap"),
    "gap_error": ("gap.error", "gap"),
    "weights_squared": ("weights.frobenius", None),
    "trace_test": ("trace.total", "test"),
    "trace_train": ("trace.total", "train"),
}

_MORE_THAN_WCI = ("flatness", "hessian")


def is_curve(reports: Sequence[Report]) -> bool:
    """Whether these are several reports of WCI and nothing that needs columns of its own."""
    return len(reports) > 1 and all(
        report.get("wci") is not None
        and not any(m.name.startswith(_MORE_THAN_WCI) for m in report.measurements)
        for report in reports
    )


def curve(checkpoints: Sequence[Report | str]) -> Curve:
    """The curve through several checkpoints.

    Args:
        checkpoints: in the order given: a report, or the source of a checkpoint that could not be
            audited and leaves a gap.

    Raises:
        UsageError: no checkpoints.

    Source: Xu & Zhang, arXiv 2410.07719v1, Figures 1 and 4.
    """
    if not checkpoints:
        raise UsageError("a curve needs at least one report")
    audited = [None if isinstance(given, str) else given for given in checkpoints]
    sources = [given if isinstance(given, str) else given.subject.source for given in checkpoints]
    axis = axis_of(sources, [report.subject.epoch if report else None for report in audited])
    names = names_of([one if isinstance(one, str) else one.subject for one in checkpoints])
    points = [
        Point(source, name, place, report, {} if report is None else _numbers(report))
        for source, name, place, report in zip(sources, names, axis.places, audited, strict=True)
    ]
    ordered = sorted(points, key=lambda point: point.place)
    notes = [*_order(axis, ordered != points), *_parts(axis, ordered), *_caveats(ordered)]
    axis = Axis(axis.name, tuple(point.place for point in ordered), axis.by)
    return Curve(axis, tuple(ordered), tuple(notes))


def _numbers(report: Report) -> dict[str, Number]:
    found = {}
    for key, (name, split) in QUANTITIES.items():
        m = report.get(name, split)
        if m is not None and m.value is not None:
            squared = key == "weights_squared"
            found[key] = Number(m.value**2) if squared else Number(m.value, m.standard_error)
    return found


def _order(axis: Axis, sorted_: bool) -> list[str]:
    if axis.by == "order":
        return ["No number tells the checkpoints apart: they are in the order given."]
    where = "its name" if axis.by == "name" else "its file"
    return [f"By the {axis.name} in {where}, not in the order given."] if sorted_ else []


def _parts(axis: Axis, points: Sequence[Point]) -> list[str]:
    """By which factors the ends of the curve differ (the WCI paper's Eq. 6 and Figure 4)."""
    split = "test" if any("wci_test" in point.numbers for point in points) else "train"
    keys = (f"wci_{split}", "weights_squared", f"trace_{split}")
    whole = [point for point in points if point.numbers.keys() >= set(keys)]
    reports = [point.report for point in whole if point.report]
    if axis.by == "order" or len(whole) < 2 or differing(reports) or architectures_differ(reports):
        return []
    ends = [[point.numbers[key].value for key in keys] for point in (whole[0], whole[-1])]
    if min(*ends[0], *ends[1]) <= 0:
        return []
    wci, squares, trace = (after / before for before, after in zip(*ends, strict=True))
    first, last = shown_place(whole[0].place), shown_place(whole[-1].place)
    return [
        f"From {axis.name} {first} to {last}, on {split} examples: WCI times {number(wci, 3)}, the "
        f"weight norm times {number(squares**0.5, 3)}, the root of the trace times "
        f"{number(trace**0.5, 3)}."
    ]


def _caveats(points: Sequence[Point]) -> list[str]:
    reports = [point.report for point in points if point.report]
    notes = []
    if unlike := differing(reports):
        notes.append(f"{unlike}: the rows are of different things.")
    if architectures_differ(reports):
        notes.append(
            "Architectures differ: WCI, weight norms and traces compare within one architecture."
        )
    for name, words in (("wci", "WCI was measured"), ("loss.robust", "PGD ran")):
        if settings_differ(reports, name):
            notes.append(f"{words} with different settings.")
    kinds = {extra(m, "quantity") for report in reports for m in _measured(report)}
    if kinds == {"gauss-newton"}:
        notes.append("The traces are of the Gauss-Newton matrix, not of the Hessian.")
    elif len(kinds) > 1:
        bent = [
            point.name
            for point in points
            if point.report
            and any(extra(m, "quantity") == "gauss-newton" for m in _measured(point.report))
        ]
        notes.append(
            f"The traces of {', '.join(bent)} are of the Gauss-Newton matrix, the others of the "
            "Hessian: they do not compare."
        )
    lost = [point.name for point in points if point.report is None]
    if lost:
        notes.append(f"Could not be audited, a gap in the curve: {', '.join(lost)}.")
    names = [point.name for point in points if point.report]
    return notes + gone(names, reports)


def _measured(report: Report) -> list[Measurement]:
    return [m for m in report.measurements if m.name == "wci" and m.status == "ok"]
