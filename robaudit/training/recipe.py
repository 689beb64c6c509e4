"""A training recipe: a TOML file of settings, checked before any work begins."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from robaudit.errors import UsageError, did_you_mean
from robaudit.request import Count, Radius, Spec, ThreatSpec
from robaudit.schema import AnyCaseNorm
from robaudit.toml_file import Tables, checked, read_tables

TaylorKind = Literal["exact", "last-layer"]


_Positive = Annotated[float, Field(gt=0)]
_Epochs = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(gt=0, lt=1)]


class ThreatTable(ThreatSpec):
    """``[threat]``: what is trained against; the data's usual threat model where left out."""

    norm: AnyCaseNorm = "linf"


class AttackTable(Spec):
    """``[attack]``: the PGD that makes the examples."""

    steps: Count = 10
    step_size: Radius | None = Field(default=None, description="eps / 4 if left")


class ScheduleTable(Spec):
    """``[schedule]``: the learning rate over the epochs."""

    kind: Literal["constant", "piecewise", "cosine", "cyclic"] = "constant"
    milestones: tuple[Count, ...] = Field(
        default=(), strict=False, description="piecewise: epochs after which the rate falls"
    )
    factor: _Share = 0.1
    warmup: _Epochs = 0


class AugmentTable(Spec):
    """``[augment]``: random changes of the training images."""

    pad: _Epochs = Field(default=0, description="random crops after that many zeros on each side")
    flip: bool = Field(default=False, description="random mirror images")


class TrhTable(Spec):
    """``[trh]``: Hessian-trace regularisation."""

    weight: _Positive = 5e-4
    where: Literal["top", "full"] = "top"
    schedule: Literal["constant", "linear", "multistep"] = "multistep"


class TaylorTable(Spec):
    """``[taylor]``: randomised weights by Taylor terms."""

    kind: TaylorKind = "exact"
    order: Literal[1, 2] = 1
    eta: _Positive = 0.3
    sigma: _Positive = 0.01
    draws: Count = 1


class AwpTable(Spec):
    """``[awp]``: adversarial weight perturbation."""

    gamma: _Positive = 0.01
    after: _Epochs = 0


class SwaTable(Spec):
    """``[swa]``: the averaged network, saved beside the trained one."""

    decay: _Share = 0.995
    after: _Epochs = 0


class WciTable(Spec):
    """``[wci]``: learning-rate control, in place of a schedule."""

    threshold: Annotated[float, Field(ge=1)] = 100.0
    after: _Epochs = 100
    every: Count = 1
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    n: Count = Field(
        default=128, description="the first training images that the index is measured on"
    )


class Recipe(Spec):
    """The whole file."""

    about: str = ""
    objective: Literal["standard", "at", "trades", "mart", "alp"] = "at"
    penalty: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="of the loss's second part: 6 for TRADES and MART, 1 for ALP if left",
    )
    epochs: Count
    batch_size: Count = 128
    seed: _Epochs = 0
    learning_rate: _Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    clip_norm: _Positive | None = None
    threat: ThreatTable = ThreatTable()
    attack: AttackTable = AttackTable()
    schedule: ScheduleTable = ScheduleTable()
    augment: AugmentTable = AugmentTable()
    trh: TrhTable | None = None
    taylor: TaylorTable | None = None
    awp: AwpTable | None = None
    swa: SwaTable | None = None
    wci: WciTable | None = None


def presets() -> dict[str, Path]:
    """The recipes robaudit brings along, by name."""
    folder = Path(str(files("robaudit.training") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_recipe(name: str, taylor: TaylorKind | None = None) -> Recipe:
    """The recipe of a file, or the preset of that name.

    Args:
        taylor: in place of the kind that stands under ``[taylor]``.

    Raises:
        UsageError: there is none, or it asks for what cannot be; with the line.
    """
    known = presets()
    path = known.get(name, Path(name))
    if name not in known and not path.is_file():
        raise UsageError(
            f"no recipe {name!r}{did_you_mean(name, list(known))}",
            f"A TOML file, or one of {', '.join(known)}.",
        )
    tables = read_tables(path)
    recipe = checked(Recipe, tables)
    if taylor is not None:
        if recipe.taylor is None:
            raise tables.refusal(
                (), f"no Taylor terms, so none of kind {taylor}", "Write [taylor]."
            )
        own = recipe.taylor.model_copy(update={"kind": taylor})
        recipe = recipe.model_copy(update={"taylor": own})
    _check(recipe, tables)
    return recipe


def _check(recipe: Recipe, tables: Tables) -> None:
    """Refuse settings that contradict one another."""
    plain = recipe.objective in ("standard", "at")
    if recipe.penalty is not None and plain:
        raise tables.refusal(("penalty",), f"{recipe.objective} has no penalty")
    if recipe.schedule.milestones and recipe.schedule.kind != "piecewise":
        raise tables.refusal(
            ("schedule", "milestones"),
            f"a {recipe.schedule.kind} schedule has no milestones",
            'Write kind = "piecewise".',
        )
    if recipe.schedule.kind == "cyclic" and recipe.schedule.warmup:
        raise tables.refusal(("schedule", "warmup"), "a cyclic schedule begins with its own rise")
    if recipe.schedule.warmup >= recipe.epochs:
        raise tables.refusal(
            ("schedule", "warmup"), f"warmup takes all of the {recipe.epochs} epochs"
        )
    if recipe.wci is not None and recipe.schedule != ScheduleTable():
        raise tables.refusal(
            ("schedule",), "[wci] sets the learning rate itself", "Leave [schedule] out."
        )
    full = recipe.trh is not None and recipe.trh.where == "full"
    if full and recipe.objective in ("mart", "alp"):
        raise tables.refusal(
            ("trh", "where"),
            f"full-network TrH is there for standard, at and trades, not for {recipe.objective}",
            'Write where = "top".',
        )
    if recipe.taylor is None:
        return
    if recipe.taylor.kind == "last-layer" and recipe.objective != "trades":
        raise tables.refusal(
            ("taylor", "kind"),
            f"last-layer Taylor terms are there for trades, not for {recipe.objective}",
            'Write objective = "trades".',
        )
    if recipe.objective == "standard":
        raise tables.refusal(
            ("taylor",),
            "the Taylor terms compare clean with adversarial images",
            'Write objective = "trades".',
        )
