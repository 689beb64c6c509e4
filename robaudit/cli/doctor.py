"""``robaudit doctor``: what is installed, what the machine can do, and what fits."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from robaudit.cli.display import Screen
from robaudit.cli.messages import show_tables
from robaudit.cli.options import Settings, with_settings
from robaudit.request import Request, made

if TYPE_CHECKING:
    from robaudit.report.table import Table
    from robaudit.session.doctor import Finding

_LOOKED_AT = 64


@with_settings(
    omit=frozenset(
        {
            *("n", "sample", "gap", "train_data", "batch_size", "precision", "seed", "samples"),
            *("straight_through", "state", "out", "on_result", "format"),
        }
    )
)
def doctor(
    settings: Settings,
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            metavar="[CKPT]",
            show_default=False,
            help="A checkpoint to try on the data: it is opened and run, and audits are timed.",
        ),
    ] = None,
) -> None:
    """Show what is installed, which device and data there are, and whether a checkpoint fits.

    [bold]robaudit doctor[/bold]

    [bold]robaudit doctor ckpt.pt --data cifar10 --data-dir ~/data[/bold]

    With a checkpoint, it is opened as an audit would open it, classifies the first 64 images, and
    one gradient is timed: from that follows how long each preset takes at most. The arithmetic is
    measured, too. Exits as an audit would where the checkpoint or the data cannot be used.
    """
    from robaudit.session.doctor import data_sets, fit, installation, machine
    from robaudit.session.session import Session

    found = {
        "Installed": installation(),
        "Machine": machine(settings.device),
        "Data sets": data_sets(settings.data_dir),
    }
    if settings.format == "table":
        show_tables(*(_table(title, findings) for title, findings in found.items()))
    if checkpoint is not None:
        asked = made(Request, settings.only(Request))
        screen = Screen(quiet=settings.quiet)
        session = Session.begin([checkpoint], asked, at_most=_LOOKED_AT, display=screen)
        found["Checkpoint"] = list(fit(session, checkpoint))
        if settings.format == "table":
            show_tables(_table(checkpoint, found["Checkpoint"]))
    if settings.format == "json":
        plain = {title: [asdict(one) for one in findings] for title, findings in found.items()}
        sys.stdout.write(jsonlib.dumps(plain, indent=2) + "\n")


def _table(title: str, findings: Iterable[Finding]) -> Table:
    from robaudit.report.table import Cell, Table, names, text

    rows = [
        [Cell(one.about, tone="soft"), Cell(one.found), Cell(one.advice, tone="warning")]
        for one in findings
    ]
    return Table([names(), text(), text()], rows, title)
