"""Flatness over checkpoints, beside the robust loss and the largest eigenvalue; and over radii."""

from __future__ import annotations

from collections.abc import Sequence

from robaudit.report.curve import Curve, Point, Quantity, missing, points_of, unlike
from robaudit.report.details import sweep_rows
from robaudit.report.differences import architectures_differ, differing
from robaudit.report.naming import SUBJECT, name_of
from robaudit.report.table import Cell, Column, Table, estimate
from robaudit.report.words import label
from robaudit.schema import Report
from robaudit.statistics.correlations import Coefficient, Correlation, correlation

QUANTITIES = (
    Quantity("loss_robust", "loss.robust", None, "Robust loss,\nnats"),
    Quantity("flatness_average", "flatness.average", None, "Flatness,\naverage"),
    Quantity("flatness_worst", "flatness.worst", None, "Flatness,\nworst"),
    Quantity("hessian_largest", "hessian.largest", None, "Largest\neigenvalue"),
    Quantity("hessian_relative_largest", "hessian.relative_largest"),
    Quantity("flatness_clean_average", "flatness.clean_average", None, "Clean fl.,\naverage"),
    Quantity("flatness_clean_worst", "flatness.clean_worst", None, "Clean fl.,\nworst"),
    Quantity("loss_clean", "loss.clean"),
    Quantity("accuracy_pgd", "accuracy.pgd"),
)
_SUBJECT = (*SUBJECT, "norm", "eps", "n")
_CORRELATED = {"flatness_average": "average flatness", "flatness_worst": "worst-case flatness"}


def sweep_tables(report: Report, named: bool = False) -> list[Table]:
    """A table over relative radii for each flatness that was measured within several.

    Args:
        named: the titles name the model.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    tables = []
    of = f" of {name_of(report.subject)}" if named else ""
    for measurement in report.measurements:
        rows = sweep_rows(measurement)
        drawn = any(row.perturbations for row in rows)
        columns = [Column("xi"), Column("Rise, nats"), *([Column("Draws")] if drawn else [])]
        cells = [
            [
                Cell(f"{row.xi:g}", value=row.xi),
                estimate(row.value, row.standard_error),
                Cell(str(row.perturbations or "-"), value=row.perturbations),
            ][: len(columns)]
            for row in rows
        ]
        if rows:
            tables.append(Table(columns, cells, f"{label(measurement)}{of}, over radii"))
    return tables


def flatness_curve(checkpoints: Sequence[Report | str]) -> Curve:
    """The curve through several checkpoints.

    Args:
        checkpoints: in the order given: a report, or the source of a checkpoint that could not be
            audited and leaves a gap.

    Raises:
        UsageError: no checkpoints.

    Source: Stutz, Hein & Schiele, ICCV 2021, Figures 1, 6 and 8.
    """
    axis, points, order = points_of(checkpoints, QUANTITIES)
    notes = unlike(
        points,
        {
            "loss.robust": "PGD ran",
            "flatness.average": "Average flatness was measured",
            "flatness.worst": "Worst-case flatness was measured",
        },
    )
    found = {key: _with_robust_loss(points, key) for key in _CORRELATED}
    correlations = {key: one for key, one in found.items() if one is not None}
    reports = [point.report for point in points if point.report]
    one_run = axis.by != "order" and not architectures_differ(reports)
    # The order given is unknown where a folder is read, so that a new order is not mentioned.
    placed = order if axis.by == "order" else []
    notes = [*_correlation_notes(correlations, one_run), *placed, *notes, *missing(points)]
    return Curve(axis, points, QUANTITIES, _SUBJECT, tuple(notes), correlations)


def _with_robust_loss(points: Sequence[Point], key: str) -> Correlation | None:
    """``None`` where the reports cannot be compared."""
    if differing([point.report for point in points if point.report]):
        return None
    both = [p.numbers for p in points if p.numbers.keys() >= {key, "loss_robust"}]
    return correlation([n[key].value for n in both], [n["loss_robust"].value for n in both])


def _correlation_notes(found: dict[str, Correlation], one_run: bool) -> list[str]:
    notes = [
        f"Robust loss and {_CORRELATED[key]} over {one.n} models: "
        f"{', '.join(correlation_words(one))}."
        for key, one in found.items()
    ]
    if any(one.pearson.interval for one in found.values()):
        notes.append("In brackets: 95 % bootstrap intervals over the models.")
    if notes and one_run:
        notes.append(
            "Checkpoints of one run are not a random sample: these intervals only describe them."
        )
    return notes


def correlation_words(found: Correlation) -> list[str]:
    """Each coefficient with its interval, in words."""

    def one(name: str, found: Coefficient) -> str:
        within = found.interval
        around = "" if within is None else f" [{within.low:.2f}, {within.high:.2f}]"
        return f"{name} {found.value:.2f}{around}"

    return [
        one("Pearson", found.pearson),
        one("Spearman", found.spearman),
        one("Kendall", found.kendall),
    ]
