"""A training recipe: a TOML file of settings, checked before any work begins."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from robaudit.errors import UsageError, did_you_mean
from robaudit.toml_file import checked, read_tables
from robaudit.training.contradictions import refuse_contradictions
from robaudit.training.recipe_tables import Recipe, TaylorKind

__all__ = ["Recipe", "presets", "read_recipe"]


def presets() -> dict[str, Path]:
    """The recipes robaudit brings along, by name; a paper's as `papers/TABLE/ROW`."""
    folder = Path(str(files("robaudit.training") / "recipes"))
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.toml")}
    return {name.removesuffix(".toml"): found[name] for name in sorted(found)}


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
        under = [other for other in known if other.startswith(f"{name.rstrip('/')}/")]
        listed = under or [other for other in known if "/" not in other]
        raise UsageError(
            f"no recipe {name!r}{'' if under else did_you_mean(name, list(known))}",
            f"A TOML file, or one of {', '.join(listed)}{'' if under else ', papers/TABLE/ROW'}.",
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
    refuse_contradictions(recipe, tables)
    return recipe
