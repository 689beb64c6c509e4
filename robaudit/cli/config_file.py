"""``--config FILE``: options from a TOML file.

Values are handed on as the words that would stand on a command line, so that they are checked and
converted in one way only.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from robaudit.errors import UsageError, did_you_mean
from robaudit.toml_file import SECTIONS, read_tables


def _read(ctx: typer.Context, path: Path | None) -> Path | None:
    if path is not None and not ctx.resilient_parsing:
        ctx.default_map = {**(ctx.default_map or {}), **_words(path, ctx)}
    return path


Config = Annotated[
    Path | None,
    typer.Option(
        is_eager=True,
        callback=_read,
        help="TOML file with options; the command line wins.",
        rich_help_panel="Run",
    ),
]


def spelled(parameter: Any) -> str:
    """An option's name on the command line, as a key and a variable have it: ``data_dir``."""
    long: str = next(word for word in parameter.opts if word.startswith("--"))
    return long[2:].replace("-", "_")


def _words(path: Path, ctx: typer.Context) -> dict[str, Any]:
    """What the file says to this command, by parameter; ``_`` and ``-`` are alike in its keys.

    Raises:
        UsageError: the file is unreadable, or has a key that is no option of this command, or a
            value that cannot stand on a command line.
    """
    from robaudit.cli.options import Settings

    where, command = f"--config {path}", str(ctx.info_name)
    content = read_tables(path, where).content
    names = [name for name in (*SECTIONS, "gate") if isinstance(content.get(name), dict)]
    tables = {name: content.pop(name) for name in names}
    tables.pop("gate", None)  # the policy
    options: dict[str, Any] = {
        spelled(p): p
        for p in ctx.command.params
        if p.param_type_name == "option" and p.name not in ("config", "help")
    }
    words: dict[str, Any] = {}
    # Keys above all tables are options of this command, as in files without tables.
    for section in ("", "options", command):
        known: Collection[str] = options
        if section == "options":
            known = {*Settings.model_fields, "json"}
        for key, value in (tables.get(section, {}) if section else content).items():
            plain = key.replace("-", "_")
            if plain not in known:
                raise _unknown(where, section, command, key, known)
            if plain in options:  # else it is one of other commands
                words[options[plain].name] = _word(f"{where}: {key}", value, options[plain])
    return words


def _unknown(
    where: str, section: str, command: str, key: str, known: Collection[str]
) -> UsageError:
    tables = () if section else SECTIONS
    options = sorted(name.replace("_", "-") for name in known)
    names = f"Options: {', '.join(options)}."
    said = f"has no option {key!r}{did_you_mean(key.replace('_', '-'), [*options, *tables])}"
    if section == "options":
        advice = f"What one command alone takes stands in its table. {names}"
        return UsageError(f"{where}: [options] {said}", advice)
    return UsageError(f"{where}: {command} {said}", names)


def _word(where: str, value: Any, option: Any) -> Any:
    """A value as the words that would stand on a command line.

    Raises:
        UsageError: it cannot stand there: a table is no text, and ``true`` is not the number 1.
    """
    several = value if option.multiple and isinstance(value, list) else [value]
    if option.is_flag:
        wanted, fits = "true or false", isinstance(value, bool)
    else:
        wanted = "a single value or a list of them" if option.multiple else "a single value"
        fits = bool(several) and not any(isinstance(one, dict | list | bool) for one in several)
    if not fits:
        raise UsageError(f"{where} must be {wanted}, not {_shown(value)}")
    if option.is_flag:
        return value
    return [str(one) for one in several] if option.multiple else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return str(value).lower() if isinstance(value, bool) else repr(value)
