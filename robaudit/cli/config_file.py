"""``--config FILE``: options from a TOML file.

What a command has as options is read off its own signature, and values are handed on as the words
that would stand on a command line: nothing here depends on how typer keeps or converts them.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from robaudit.errors import UsageError


class _Kind(Enum):
    """How often an option is given, and whether it takes a value."""

    FLAG = auto()
    VALUE = auto()
    VALUES = auto()


def config_option(parameters: Collection[inspect.Parameter], panel: str) -> Any:
    """The annotation of the option ``--config`` of a command that has these parameters."""
    # Typer has no name for what its Option() gives that all its versions share.
    option = type(typer.Option())
    kinds = {
        p.name: _kind(get_args(p.annotation)[0])
        for p in parameters
        if p.name != "config"
        and any(isinstance(note, option) for note in get_args(p.annotation)[1:])
    }

    def read(ctx: typer.Context, path: Path | None) -> Path | None:
        if path is not None and not ctx.resilient_parsing:
            words = _words(path, ctx, kinds)
            ctx.default_map = {**(ctx.default_map or {}), **words}
        return path

    return Annotated[
        Path | None,
        typer.Option(
            is_eager=True,
            callback=read,
            help="TOML file with options; the command line wins.",
            rich_help_panel=panel,
        ),
    ]


def spelled(parameter: Any) -> str:
    """An option's name on the command line, as a key and a variable have it: ``data_dir``."""
    long: str = next(word for word in parameter.opts if word.startswith("--"))
    return long[2:].replace("-", "_")


def _kind(type_: Any) -> _Kind:
    alternatives = (type_,) if get_origin(type_) is list else get_args(type_) or (type_,)
    if bool in alternatives:
        return _Kind.FLAG
    several = any(get_origin(alternative) is list for alternative in alternatives)
    return _Kind.VALUES if several else _Kind.VALUE


def _words(path: Path, ctx: typer.Context, kinds: dict[str, _Kind]) -> dict[str, Any]:
    """What the file says, by option; keys are option names, ``_`` or ``-`` alike.

    Raises:
        UsageError: the file is unreadable, or has a key that is no option of this command, or a
            value that cannot stand on a command line.
    """
    from robaudit.toml_file import read_toml

    try:
        _, given = read_toml(path)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from None
    options = {spelled(p): p.name for p in ctx.command.params if p.name in kinds}
    words: dict[str, Any] = {}
    for key, value in given.items():
        name = options.get(key.replace("-", "_"))
        if name is None:
            near = difflib.get_close_matches(key.replace("-", "_"), sorted(options), 1)
            guess = f" Did you mean {near[0].replace('_', '-')}?" if near else ""
            raise UsageError(
                f"--config {path}: {ctx.info_name} has no option {key!r}.{guess}",
                f"Options: {', '.join(sorted(name.replace('_', '-') for name in options))}.",
            )
        said = _READERS[kinds[name]](value)
        if said is None:
            wanted = _WANTED[kinds[name]]
            raise UsageError(f"--config {path}: {key} must be {wanted}, not {_shown(value)}")
        words[name] = said
    return words


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _value(value: Any) -> str | None:
    # A table is no text, and true is not the number 1.
    return None if isinstance(value, (dict, list, bool)) else str(value)


def _values(value: Any) -> list[str] | None:
    several = value if isinstance(value, list) else [value]
    words = [word for one in several if (word := _value(one)) is not None]
    return words if words and len(words) == len(several) else None


_READERS: dict[_Kind, Callable[[Any], Any]] = {
    _Kind.FLAG: _flag,
    _Kind.VALUE: _value,
    _Kind.VALUES: _values,
}
_WANTED = {
    _Kind.FLAG: "true or false",
    _Kind.VALUE: "a single value",
    _Kind.VALUES: "a single value or a list of them",
}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return str(value).lower() if isinstance(value, bool) else repr(value)
