"""What every measuring command does: audit, show, exit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from robaudit.cli.display import Screen
from robaudit.cli.messages import console
from robaudit.cli.options import FLOAT64_IS_OF_CURVATURE, Format, Settings
from robaudit.errors import UsageError

if TYPE_CHECKING:
    from robaudit.audit import Plan
    from robaudit.audit.adversarial_file import Adversarial
    from robaudit.schema import Report
    from robaudit.session.many import Outcome, Surrogate


def measure(
    checkpoints: list[str],
    plan: Plan,
    settings: Settings,
    *,
    surrogate: Surrogate | None = None,
    replayed: Adversarial | None = None,
    save_adv: Path | None = None,
    exact: bool = False,
    curve_of_one: bool = False,
) -> None:
    """Audit every checkpoint by ``plan`` and show the reports.

    The arguments are those of :func:`robaudit.session.audit_all`. Exits with 3 where a measurement
    failed, and with the error's code where a checkpoint could not be audited.
    """
    outcome = run(
        checkpoints, plan, settings, surrogate=surrogate, replayed=replayed, save_adv=save_adv,
        exact=exact, curve_of_one=curve_of_one,
    )  # fmt: skip
    if outcome.reports:
        show(outcome.found, settings.format)
    if outcome.code:
        raise typer.Exit(outcome.code)


def run(
    checkpoints: list[str],
    plan: Plan,
    settings: Settings,
    *,
    out: Path | None = None,
    surrogate: Surrogate | None = None,
    replayed: Adversarial | None = None,
    save_adv: Path | None = None,
    exact: bool = False,
    curve_of_one: bool = False,
) -> Outcome:
    """:func:`robaudit.session.audit_all` with progress and messages on stderr."""
    from robaudit.audit.probes import Hessian, Wci
    from robaudit.session import audit_all

    curved = plan.get(Wci) or plan.get(Hessian)
    if settings.precision == "float64" and curved is None:
        raise UsageError(*FLOAT64_IS_OF_CURVATURE)
    return audit_all(
        checkpoints,
        plan,
        settings,
        out=out or settings.out,
        display=Screen(settings.quiet),
        surrogate=surrogate,
        replayed=replayed,
        save_adv=save_adv,
        exact=exact,
        curve_of_one=curve_of_one,
    )


def show(found: Sequence[Report | str], format: Format) -> None:
    """Print the reports: in colour on a terminal, as plain text elsewhere.

    Args:
        found: a report, or the name of a checkpoint that could not be audited, which leaves a gap
            in a curve; where there are several, JSON is an array.
    """
    from robaudit.report import render, screen_tables
    from robaudit.report.formats.terminal import terminal_view

    if format == "table":
        console().print(terminal_view(*screen_tables(found)))
        return
    reports = [one for one in found if not isinstance(one, str)]
    sys.stdout.write(render(reports, format, several=len(found) > 1))
