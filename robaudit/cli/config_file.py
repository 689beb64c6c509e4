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
from robaudit.toml_file import SECTIONS, read_toml


class _Kind(Enum):
    """How often an option is given, and whether it takes a value."""

    FLAG = auto()
    VALUE = auto()
    VALUES = auto()


def config_option(parameters: Collection[inspect.Parameter], common: Collection[str]) -> Any:
    """The annotation of the option ``--config`` of a command that has these parameters.

    Args:
        common: names of the options that every command has or may have.
    """
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
            words = _words(path, ctx, kinds, common)
            ctx.default_map = {**(ctx.default_map or {}), **words}
        return path

    return Annotated[
        Path | None,
        typer.Option(
            is_eager=True,
            callback=read,
            help="TOML file with options; the command line wins.",
            rich_help_panel="Run",
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


def _words(
    path: Path, ctx: typer.Context, kinds: dict[str, _Kind], common: Collection[str]
) -> dict[str, Any]:
    """What the file says to this command, by option; keys are option names, ``_`` or ``-`` alike.

    Raises:
        UsageError: the file is unreadable, or has a key that is no option of this command, or a
            value that cannot stand on a command line.
    """
    try:
        _, content = read_toml(path)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from None
    command = str(ctx.info_name)
    tables = {
        name: content.pop(name)
        for name in (*SECTIONS, "gate")
        if isinstance(content.get(name), dict)
    }
    options = {spelled(p): p.name for p in ctx.command.params if p.name in kinds}
    words: dict[str, Any] = {}
    # Keys above all tables are options of this command, as in files without tables.
    for section, given in (
        ("", content),
        ("options", tables.get("options", {})),
        (command, {} if command == "gate" else tables.get(command, {})),
    ):
        for key, value in given.items():
            plain = key.replace("-", "_")
            known: Collection[str] = common if section == "options" else options
            if plain not in known:
                raise _unknown(f"--config {path}", section, command, key, known)
            if plain in options:  # else it is of other commands
                name = options[plain]
                words[name] = _word(f"--config {path}: {key}", value, kinds[name])
    return words


def _unknown(
    where: str, section: str, command: str, key: str, known: Collection[str]
) -> UsageError:
    tables = () if section else SECTIONS
    near = difflib.get_close_matches(key.replace("-", "_"), sorted({*known, *tables}), 1)
    guess = f" Did you mean {near[0].replace('_', '-')}?" if near else ""
    names = f"Options: {', '.join(sorted(name.replace('_', '-') for name in known))}."
    if section == "options":
        message = f"{where}: [options] has no option {key!r}.{guess}"
        return UsageError(message, f"What one command alone takes stands in its table. {names}")
    return UsageError(f"{where}: {command} has no option {key!r}.{guess}", names)


def _word(where: str, value: Any, kind: _Kind) -> Any:
    """A value as the words that would stand on a command line."""
    said = _READERS[kind](value)
    if said is None:
        raise UsageError(f"{where} must be {_WANTED[kind]}, not {_shown(value)}")
    return said


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
