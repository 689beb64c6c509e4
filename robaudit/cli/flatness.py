"""What ``robaudit flatness`` shows and writes beyond the reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from robaudit.cli.measure import run, show
from robaudit.cli.messages import console
from robaudit.cli.options import Format, Settings

if TYPE_CHECKING:
    from robaudit.audit import Plan
    from robaudit.report.curve import Curve
    from robaudit.schema import Report


def measure_flatness(checkpoints: list[str], plan: Plan, settings: Settings) -> None:
    """Audit every checkpoint; show radii in a table, several checkpoints as a curve.

    Exits as :func:`robaudit.cli.measure.measure` does.
    """
    from robaudit.report.flatness_curve import flatness_curve

    found, code = run(checkpoints, plan, settings, curve_of_one=True)
    reports = [one for one in found if not isinstance(one, str)]
    if reports:
        curve = flatness_curve(found) if len(found) > 1 else None
        if settings.json or settings.format is not Format.table:
            show(found, Format.json if settings.json else settings.format)
        else:
            if curve is None:
                show(found, Format.table)
            _print(reports, curve)
        if curve is not None and settings.out is not None:
            from robaudit.report.flatness_folder import write_flatness

            write_flatness(settings.out, curve)
    if code:
        raise typer.Exit(code)


def _print(reports: list[Report], curve: Curve | None) -> None:
    from robaudit.report.curve import curve_tables
    from robaudit.report.flatness_curve import sweep_tables
    from robaudit.report.formats.terminal import terminal_view

    screen = console()
    if curve is not None:
        screen.print(terminal_view(*curve_tables(curve, drawn=True)))
    for report in reports:
        if tables := sweep_tables(report, named=len(reports) > 1):
            screen.print()
            screen.print(terminal_view(*tables))
