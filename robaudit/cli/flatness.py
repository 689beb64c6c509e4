"""What ``robaudit flatness`` shows and writes beyond the reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from robaudit.cli.measure import run, show
from robaudit.cli.messages import console, show_tables
from robaudit.cli.options import Settings

if TYPE_CHECKING:
    from robaudit.audit import Plan
    from robaudit.report.curve import Curve
    from robaudit.schema import Report


def measure_flatness(checkpoints: list[str], plan: Plan, settings: Settings) -> None:
    """Audit every checkpoint; show radii in a table, several checkpoints as a curve.

    Exits as :func:`robaudit.cli.measure.measure` does.
    """
    from robaudit.report.flatness_curve import flatness_curve

    outcome = run(checkpoints, plan, settings, curve_of_one=True)
    found = outcome.found
    if outcome.reports:
        curve = flatness_curve(found) if len(found) > 1 else None
        if settings.format != "table":
            show(found, settings.format)
        else:
            if curve is None:
                show(found, "table")
            _print(outcome.reports, curve)
        if curve is not None and settings.out is not None:
            from robaudit.report.flatness_folder import write_flatness

            write_flatness(settings.out, curve)
    if outcome.code:
        raise typer.Exit(outcome.code)


def _print(reports: list[Report], curve: Curve | None) -> None:
    from robaudit.report.curve import curve_tables
    from robaudit.report.flatness_curve import sweep_tables

    if curve is not None:
        show_tables(*curve_tables(curve, drawn=True))
    for report in reports:
        if tables := sweep_tables(report, named=len(reports) > 1):
            console().print()
            show_tables(*tables)
