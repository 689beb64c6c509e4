"""Settings of a recipe that contradict one another."""

from __future__ import annotations

from robaudit.toml_file import Tables
from robaudit.training.recipe_tables import Recipe, ScheduleTable


def refuse_contradictions(recipe: Recipe, tables: Tables) -> None:
    """Refuse the first pair of settings that cannot both be meant.

    Raises:
        UsageError: with its line.
    """
    _objective(recipe, tables)
    _schedule(recipe, tables)
    _optimizer(recipe, tables)
    _regularisers(recipe, tables)


def _objective(recipe: Recipe, tables: Tables) -> None:
    plain = recipe.objective in ("standard", "at")
    if recipe.penalty is not None and plain:
        raise tables.refusal(("penalty",), f"{recipe.objective} has no penalty")
    if recipe.objective == "mart" and (recipe.label_smoothing or recipe.augment.mixup):
        raise tables.refusal(
            ("label_smoothing",) if recipe.label_smoothing else ("augment", "mixup"),
            "MART's loss takes the label itself, neither smoothed nor mixed",
            'Write objective = "at", "trades" or "alp".',
        )


def _schedule(recipe: Recipe, tables: Tables) -> None:
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


def _optimizer(recipe: Recipe, tables: Tables) -> None:
    if recipe.optimizer == "adam" and "momentum" in recipe.model_fields_set:
        raise tables.refusal(("momentum",), "adam has moments of its own", "Leave momentum out.")


def _regularisers(recipe: Recipe, tables: Tables) -> None:
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
    soft = recipe.label_smoothing or recipe.augment.mixup
    if recipe.taylor.kind == "last-layer" and soft:
        raise tables.refusal(
            ("taylor", "kind"),
            "last-layer Taylor terms take the label itself, neither smoothed nor mixed",
            'Write kind = "exact".',
        )
    if recipe.objective == "standard":
        raise tables.refusal(
            ("taylor",),
            "the Taylor terms compare clean with adversarial images",
            'Write objective = "trades".',
        )
