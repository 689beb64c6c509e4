"""``robaudit audit`` and ``robaudit demo``: all probes of a preset."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer
from pydantic import Field

from robaudit.cli.measure import measure
from robaudit.cli.options import Checkpoints, Settings, with_settings
from robaudit.request import CheckpointSpec, Count, DataSpec, PlanSpec, ThreatSpec


class PlanOptions(PlanSpec):
    """What is measured, and by which PGD."""

    steps: Count | None = Field(
        default=None,
        description="Steps of the PGD behind accuracies and losses; WCI and flatness keep theirs. "
        "[default: the preset's]",
    )
    restarts: Count | None = Field(
        default=None, description="Its random starts. [default: the preset's]"
    )


@with_settings(gap=True)
def audit(checkpoints: Checkpoints, settings: Settings, how: Annotated[PlanOptions, None]) -> None:
    """Run all probes of a preset on one or more checkpoints.

    [bold]robaudit audit ckpt.pt --data cifar10 --data-dir ~/data --out report[/bold]

    Accuracies and losses clean and under attack with their intervals, generalisation gaps, the
    Weight-Curvature Index layer by layer, the Hessian's spectrum, and flatness. Adversarial
    examples that several probes need are made once. With --out: report.html, report.json,
    report.md, measurements.csv, classes.csv, layers.csv, curvature.svg and .png, examples.npz
    (per-example outcomes) and gallery.npz; of several checkpoints also index.html.
    """
    from robaudit.audit.plan import planned
    from robaudit.audit.probes import Pgd

    plan = planned(how.preset, how.also, how.union, how.union_each)
    pgd = plan.get(Pgd)
    assert pgd is not None
    pgd = replace(pgd, steps=how.steps or pgd.steps, restarts=how.restarts or pgd.restarts)
    measure(checkpoints, plan.put(pgd), settings)


_SAMPLES = ("standard.pt", "robust.pt", "overfit.pt", "trades.safetensors", "smooth.safetensors")

# The demo's checkpoints, data and threat are its own.
_NOT_IN_DEMO = frozenset(
    {*CheckpointSpec.model_fields, *DataSpec.model_fields, *ThreatSpec.model_fields}
    - {"guess", "n", "gap", "force_eps"}
    | {"config", "samples", "straight_through"}
)

_READING = """
How to read it: `standard` is right on nearly every clean image, and PGD breaks it.
`overfit` was trained adversarially for too long: beside `robust`, the gap between its test and
training robust loss is larger, and so are its WCI and its flatness (smaller is flatter).

Next: robaudit audit CKPT --data NAME    every measurement of your own checkpoint
      robaudit inspect CKPT              what a file is, without running any of it"""


@with_settings(omit=_NOT_IN_DEMO, gap=True)
def demo(settings: Settings) -> None:
    """Audit the bundled sample checkpoints on the bundled digits: a first look in a minute.

    A standard, an adversarially trained, an overfitted, a TRADES and a smooth network, each really
    trained on handwritten digits, side by side in one table.
    """
    from robaudit.audit import preset as plan_of
    from robaudit.checkpoints import samples_dir

    folder = samples_dir()
    measure([str(folder / name) for name in _SAMPLES], plan_of("quick"), settings)
    if settings.format == "table":
        typer.echo(_READING)
