"""Settings of a recipe that contradict one another."""

from __future__ import annotations

from robaudit.toml_file import Tables
from robaudit.training.recipe_tables import Recipe, ScheduleTable

# Keys of a schedule, and the kinds that have them.
_ONLY = {
    "milestones": ("piecewise", "piecewise-zoom"),
    "zoom": ("piecewise-zoom",),
    "patience": ("plateau",),
}


def refuse_contradictions(recipe: Recipe, tables: Tables) -> None:
    """Refuse the first pair of settings that cannot both be meant.

    Raises:
        UsageError: with its line.
    """
    _objective(recipe, tables)
    _schedule(recipe, tables)
    _optimizer(recipe, tables)
    _extra(recipe, tables)
    _regularisers(recipe, tables)
    _rotations(recipe, tables)


def _objective(recipe: Recipe, tables: Tables) -> None:
    plain = recipe.objective in ("standard", "at")
    if recipe.penalty is not None and plain:
        raise tables.refusal(("penalty",), f"{recipe.objective} has no penalty")
    if recipe.objective == "standard" and recipe.attack.early_stop is not None:
        raise tables.refusal(("attack", "early_stop"), "standard training has no attack")
    if recipe.objective == "mart" and (recipe.label_smoothing or recipe.augment.mixup):
        raise tables.refusal(
            ("label_smoothing",) if recipe.label_smoothing else ("augment", "mixup"),
            "MART's loss takes the label itself, neither smoothed nor mixed",
            'Write objective = "at", "trades" or "alp".',
        )


def _schedule(recipe: Recipe, tables: Tables) -> None:
    plan = recipe.schedule
    for key, kinds in _ONLY.items():
        if key in plan.model_fields_set and plan.kind not in kinds:
            raise tables.refusal(
                ("schedule", key),
                f"a {plan.kind} schedule has no {key}",
                f'Write kind = "{kinds[0]}".',
            )
    if plan.kind == "piecewise-zoom" and not plan.milestones:
        raise tables.refusal(
            ("schedule", "kind"),
            "a piecewise-zoom schedule falls at milestones, and there are none",
            "Write milestones = [100, 150].",
        )
    if plan.kind == "plateau" and not recipe.validation:
        raise tables.refusal(
            ("schedule", "kind"),
            "a plateau is one of the robust loss on examples held out, and there are none",
            "Write validation = 0.02 above the tables.",
        )
    if plan.kind == "cyclic" and plan.warmup:
        raise tables.refusal(("schedule", "warmup"), "a cyclic schedule begins with its own rise")
    if plan.kind == "plateau" and plan.warmup:
        raise tables.refusal(("schedule", "warmup"), "a plateau schedule has no warmup")
    if plan.warmup >= recipe.epochs:
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
    entropy = recipe.optimizer == "entropy-sgd"
    if recipe.entropy_sgd is not None and not entropy:
        raise tables.refusal(
            ("entropy_sgd",),
            f"the optimizer is {recipe.optimizer}",
            'Write optimizer = "entropy-sgd".',
        )
    if recipe.swa is not None and entropy:
        raise tables.refusal(
            ("swa",),
            "entropy-sgd averages weights itself, and holds Langevin iterates between its steps",
            "Leave [swa] out.",
        )


def _extra(recipe: Recipe, tables: Tables) -> None:
    if "extra_share" not in recipe.model_fields_set and recipe.extra_data is None:
        return
    if recipe.extra_data is None:
        raise tables.refusal(("extra_share",), "there is no extra data", "Write extra_data.")
    if round(recipe.extra_share * recipe.batch_size) in (0, recipe.batch_size):
        raise tables.refusal(
            ("extra_share",) if "extra_share" in recipe.model_fields_set else ("batch_size",),
            f"a batch of {recipe.batch_size} with {recipe.extra_share:g} of extra data has no "
            "images of both kinds",
            "Take a larger batch_size, or a share nearer to 0.5.",
        )


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


def _rotations(recipe: Recipe, tables: Tables) -> None:
    if recipe.rotations is None:
        return
    if recipe.objective not in ("standard", "at"):
        raise tables.refusal(
            ("rotations",),
            f"rotations are there for standard and at, not for {recipe.objective}",
            'Write objective = "at".',
        )
    for name in ("trh", "taylor"):
        if getattr(recipe, name) is not None:
            raise tables.refusal(
                (name,), f"[{name}] is not there beside [rotations]", f"Leave [{name}] out."
            )
