"""``robaudit landscape``: slices of the loss in weight space and around images."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from robaudit.cli.landscape_options import Cut
from robaudit.cli.landscape_run import cut_landscape
from robaudit.cli.measure_options import PgdOptions
from robaudit.cli.messages import show_tables
from robaudit.cli.options import Checkpoints, Settings, with_settings
from robaudit.errors import UsageError

_LEFT_OUT = frozenset(
    {"gap", "train_data", "state", "on_result", "format"} | {"samples", "straight_through"}
)


@with_settings(omit=_LEFT_OUT)
def landscape(
    checkpoints: Checkpoints,
    settings: Settings,
    *,
    cut: Annotated[Cut, "What is cut"],
    fixed_examples: Annotated[
        bool,
        typer.Option(
            "--fixed-examples",
            help="Keep the adversarial examples of the middle, which underestimates the robust "
            "loss away from it.",
            rich_help_panel="Robust loss",
        ),
    ] = False,
    attack: Annotated[PgdOptions, None],
) -> None:
    """Pictures of the loss around a network, between networks, and around images.

    [bold]robaudit landscape ckpt.pt --data cifar10 --data-dir ~/data --out pictures[/bold]

    One checkpoint: clean and robust loss along directions scaled to its weights. Two: the line
    between them, and beyond. Three: the plane through them. Several with --compare: each in
    directions of its own, over each other. A run's with --trajectory: the plane in which they moved
    most, with their path. Adversarial examples are made anew at every place.
    """
    if settings.sha256 is not None and len(checkpoints) > 1:
        raise UsageError("sha256 is one file's, but there are several checkpoints", field="sha256")
    attack.check()
    cut.check(len(checkpoints), settings.n)
    pgd = (attack.steps, attack.step_size, attack.restarts, settings.seed, fixed_examples)
    with ExitStack() as stack:
        folder = None
        if settings.out is not None:
            from robaudit.report.landscape_folder import landscape_folder

            folder = stack.enter_context(landscape_folder(settings.out))
        found, code = cut_landscape(checkpoints, cut, pgd, settings)
        if folder is not None:
            from robaudit.report.landscape_folder import fill_landscape

            fill_landscape(folder, found)
    if settings.format == "json":
        from robaudit.report.landscape import landscape_object

        json.dump(landscape_object(found), sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
    else:
        from robaudit.report.landscape_tables import landscape_tables

        show_tables(*landscape_tables(found))
    if code:
        raise typer.Exit(code)
