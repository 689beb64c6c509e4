"""What every measuring command does: audit, show, exit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from robaudit.cli.display import Screen, loading
from robaudit.cli.messages import show_tables
from robaudit.cli.on_result import teller
from robaudit.cli.options import FLOAT64_IS_OF_CURVATURE, Format, Settings
from robaudit.errors import UsageError

if TYPE_CHECKING:
    from robaudit.audit import Plan
    from robaudit.schema import Report
    from robaudit.session.many import Outcome


def measure(checkpoints: list[str], plan: Plan, settings: Settings, **how: Any) -> None:
    """:func:`run`, then show the reports.

    Exits with 3 where a measurement failed, and with the error's code where a checkpoint could not
    be audited.
    """
    outcome = run(checkpoints, plan, settings, **how)
    if outcome.reports:
        show(outcome.found, settings.format)
    if outcome.code:
        raise typer.Exit(outcome.code)


def run(checkpoints: list[str], plan: Plan, settings: Settings, **how: Any) -> Outcome:
    """:func:`robaudit.session.audit_all` with the options, and with messages on stderr.

    Args:
        how: further arguments of that function.
    """
    from robaudit.audit.probes import Hessian, Wci

    with loading(settings.quiet):
        from robaudit.session import audit_all
    curved = plan.get(Wci) or plan.get(Hessian)
    if settings.precision == "float64" and curved is None:
        raise UsageError(*FLOAT64_IS_OF_CURVATURE)
    how = {"out": settings.out, "on_result": teller(settings.on_result, settings.out), **how}
    return audit_all(checkpoints, plan, settings, display=Screen(settings.quiet), **how)


def show(found: Sequence[Report | str], format: Format) -> None:
    """Print the reports: in colour on a terminal, as plain text elsewhere.

    Args:
        found: a report, or the name of a checkpoint that could not be audited, which leaves a gap
            in a curve; where there are several, JSON is an array.
    """
    from robaudit.report import render, screen_tables

    if format == "table":
        show_tables(*screen_tables(found))
        return
    reports = [one for one in found if not isinstance(one, str)]
    sys.stdout.write(render(reports, format, several=len(found) > 1))
