"""``robaudit landscape``: slices of the loss in weight space and around images."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Annotated, Literal

import typer

from robaudit.cli.landscape_run import Cut, cut_landscape
from robaudit.cli.measure_commands import Restarts, Steps, StepSize
from robaudit.cli.messages import console
from robaudit.cli.options import Checkpoints, Settings, with_settings
from robaudit.errors import UsageError

_SHAPE, _PGD = "What is cut", "Robust loss"
_LEFT_OUT = frozenset(
    {"gap", "train_data", "precision", "state", "format", "samples", "straight_through"}
)
_POINTS = {1: 21, 2: 11}


Space = Literal["weights", "input"]
"""Where the landscape lies."""


Directions = Literal["random", "adversarial"]
"""Of a cut around one network."""


By = Literal["layer", "filter"]
"""What has one norm."""


@with_settings(omit=_LEFT_OUT)
def landscape(
    checkpoints: Checkpoints,
    settings: Settings,
    space: Annotated[
        Space,
        typer.Option(
            help="weights: around the network. input: around images, sign of the gradient against "
            "random signs.",
            rich_help_panel=_SHAPE,
        ),
    ] = "weights",
    directions: Annotated[
        Directions,
        typer.Option(
            help="Around one network: random, or the worst that the worst case of flatness finds; "
            "over a plane that one against a random one.",
            rich_help_panel=_SHAPE,
        ),
    ] = "random",
    dimensions: Annotated[
        int,
        typer.Option(min=1, max=2, help="1: along lines. 2: over a plane.", rich_help_panel=_SHAPE),
    ] = 1,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Several checkpoints, each in directions of its own, in one figure.",
            rich_help_panel=_SHAPE,
        ),
    ] = False,
    normalize_by: Annotated[
        By,
        typer.Option(
            help="layer: s = 1 moves every parameter tensor by its own norm. filter: every filter.",
            rich_help_panel=_SHAPE,
        ),
    ] = "layer",
    points: Annotated[
        int | None,
        typer.Option(
            help="Places along each axis, an odd number. [default: 21, over a plane 11]",
            show_default=False,
            rich_help_panel=_SHAPE,
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option(min=1, help="Directions whose mean is shown.", rich_help_panel=_SHAPE),
    ] = 3,
    reach: Annotated[
        float | None,
        typer.Option(
            "--range",
            help="From minus this to this, around one network or image. [default: 1; in "
            "adversarial directions 0.05; around images twice the threat model's radius]",
            show_default=False,
            rich_help_panel=_SHAPE,
        ),
    ] = None,
    example: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="One image, by its place in the data, instead of the mean over --n.",
            rich_help_panel=_SHAPE,
        ),
    ] = None,
    fixed_examples: Annotated[
        bool,
        typer.Option(
            "--fixed-examples",
            help="Keep the adversarial examples of the middle, which underestimates the robust "
            "loss away from it.",
            rich_help_panel=_PGD,
        ),
    ] = False,
    steps: Steps = 20,
    restarts: Restarts = 1,
    step_size: StepSize = None,
) -> None:
    """Pictures of the loss around a network, between networks, and around images.

    [bold]robaudit landscape ckpt.pt --data cifar10 --data-dir ~/data --out pictures[/bold]

    One checkpoint: clean and robust loss along directions scaled to its weights. Two: the line
    between them, and beyond. Three: the plane through them. Several with --compare: each in
    directions of its own, over each other. Adversarial examples are made anew at every place.
    """
    _check(
        len(checkpoints), settings, space, compare, dimensions, directions, reach, example,
        step_size,
    )  # fmt: skip
    through: Literal["directions", "checkpoints", "images"]
    if space == "input":
        through, dimensions = "images", 2
    elif len(checkpoints) > 1 and not compare:
        through, dimensions = "checkpoints", len(checkpoints) - 1
    else:
        through = "directions"
    cut = Cut(
        through, dimensions, directions, normalize_by,
        _POINTS[dimensions] if points is None else points, repeats, reach, example, steps,
        step_size, restarts, fixed_examples,
    )  # fmt: skip
    with ExitStack() as stack:
        folder = None
        if settings.out is not None:
            from robaudit.report.landscape_folder import landscape_folder

            folder = stack.enter_context(landscape_folder(settings.out))
        found, code = cut_landscape(checkpoints, cut, settings)
        if folder is not None:
            from robaudit.report.landscape_folder import fill_landscape

            fill_landscape(folder, found)
    if settings.format == "json":
        from robaudit.report.landscape import landscape_object

        json.dump(landscape_object(found), sys.stdout, indent=2, allow_nan=False)
        sys.stdout.write("\n")
    else:
        from robaudit.report.formats.terminal import terminal_view
        from robaudit.report.landscape_tables import landscape_tables

        console().print(terminal_view(*landscape_tables(found)))
    if code:
        raise typer.Exit(code)


def _check(
    count: int,
    settings: Settings,
    space: Space,
    compare: bool,
    dimensions: int,
    directions: Directions,
    reach: float | None,
    example: int | None,
    step_size: float | None,
) -> None:
    """Refuse options that do not go together."""
    if settings.sha256 is not None and count > 1:
        raise UsageError("--sha256 is one file's, but there are several checkpoints")
    if step_size is not None and not step_size > 0:
        raise UsageError(f"--step-size must be positive, not {step_size:g}")
    if space == "input" and (count > 1 or compare):
        raise UsageError(
            f"--space input takes one checkpoint, not {count}", "Run it once for each."
        )
    if compare and (count < 2 or dimensions == 2):
        raise UsageError(
            "--compare lays lines of several checkpoints over each other",
            "Give two checkpoints or more, and no --dimensions 2.",
        )
    if count > 3 and not compare:
        raise UsageError(
            f"a line goes through two checkpoints and a plane through three, not {count}",
            "With --compare each is shown in directions of its own.",
        )
    if count == 2 and dimensions == 2:
        raise UsageError("a plane goes through three checkpoints, not 2", "Give one more.")
    if directions == "adversarial" and (space == "input" or (count > 1 and not compare)):
        raise UsageError(
            "--directions is for cuts around one network, in weight space",
            "With --compare each of several networks has its own.",
        )
    if count > 1 and not compare and reach is not None:
        raise UsageError(
            "--range is for directions: a line or plane goes as far beyond its checkpoints as "
            "--points has room",
            "Leave it out.",
        )
    if example is not None and space != "input":
        raise UsageError(
            "--example is for --space input", "In weight space --n 1 takes the first example."
        )
    if example is not None and settings.n is not None:
        raise UsageError("--example is one image and --n several", "Leave one of them out.")
