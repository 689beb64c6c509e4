"""Several reports side by side: a WCI curve, or one row a model, the best of each column marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from robaudit.errors import UsageError
from robaudit.measures import Measure, known
from robaudit.report.curve import curve_tables
from robaudit.report.differences import architectures_differ, differing, gone, settings_differ
from robaudit.report.naming import names_of
from robaudit.report.table import Cell, Column, Table, measured, names
from robaudit.report.wci_curve import is_wci_curve, wci_curve
from robaudit.schema import Measurement, Report


def comparison_tables(found: Sequence[Report | str], drawn: bool = False) -> list[Table]:
    """One row a model; reports of WCI alone as a curve.

    Args:
        found: reports; in a curve, the source of a checkpoint that could not be audited is a gap.
        drawn: with the courses of a curve drawn in lines of text.

    Raises:
        UsageError: no reports.
    """
    reports = [one for one in found if not isinstance(one, str)]
    if not reports:
        raise UsageError("a comparison needs at least one report")
    if is_wci_curve(reports):
        return curve_tables(wci_curve(found), drawn)
    return [_side_by_side(reports)]


def _side_by_side(reports: Sequence[Report]) -> Table:
    measures = [m for m in known() if m.heading and any(_get(r, m) for r in reports)]
    unlike = differing(reports)
    mixed = architectures_differ(reports)
    columns = []
    for measure in measures:
        row = [_get(report, measure) for report in reports]
        ranked = not unlike and not (mixed and measure.of_one_architecture)
        best = _best(row, measure) if ranked else set()
        columns.append([replace(_cell(m), best=at in best) for at, m in enumerate(row)])
    named = names_of([report.subject for report in reports])
    rows = [list(row) for row in zip([Cell(name) for name in named], *columns, strict=True)]
    notes = [*_caveats(reports), *gone(named, reports)]
    if unlike:
        notes.insert(0, f"{unlike}: no column is ranked.")
    if any(cell.spread for row in rows for cell in row):
        notes.insert(0, "With a value: its confidence interval, or ± one standard error.")
    headings = [names("Model"), *(Column(measure.heading) for measure in measures)]
    return Table(headings, rows, notes=notes, stacked=True)


def _get(report: Report, measure: Measure) -> Measurement | None:
    return report.get(measure.name, "gap" if measure.split == "gap" else None)


def _best(column: Sequence[Measurement | None], measure: Measure) -> set[int]:
    """The rows that hold the best value: several at a tie, none where all agree."""
    values = {at: m.value for at, m in enumerate(column) if m is not None and m.value is not None}
    if len(set(values.values())) < 2 or measure.better is None:
        return set()
    top = (max if measure.better == "higher" else min)(values.values())
    return {at for at, value in values.items() if value == top}


def _cell(measurement: Measurement | None) -> Cell:
    """With an interval as short as it can be written: ``81.8-86.4``."""
    cell = measured(measurement, prefer_error=True)
    spread = cell.spread if "[-" in cell.spread else cell.spread.replace(", ", "-")
    return replace(cell, spread=spread.strip("[]"))


def _caveats(reports: Sequence[Report]) -> list[str]:
    notes = [
        f"{words} ran with different settings."
        for name, words in (("accuracy.pgd", "PGD"), ("accuracy.autoattack", "AutoAttack"))
        if settings_differ(reports, name)
    ]
    if architectures_differ(reports):
        notes.append("Architectures differ: WCI and eigenvalues depend on them and are not ranked.")
    return notes
