"""TOML files checked against a model, with the line and the nearest name of what is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from robaudit.errors import UsageError, did_you_mean

Place = tuple[str | int, ...]

SECTIONS = (
    "options",
    "audit",
    "attack",
    "wci",
    "flatness",
    "hessian",
    "certify",
    "corruptions",
    "landscape",
    "compare",
    "doctor",
    "train",
)
"""Tables of a ``robaudit.toml`` beside ``[gate]``: options of every command, and of one each."""
M = TypeVar("M", bound=BaseModel)

_MOST_BYTES, _DEEPEST = 1 << 22, 50
# Lines of one statement for which line numbers are worked out.
_LONGEST = 1000


@dataclass(frozen=True)
class Tables:
    """A TOML file's content, and the line on which each key and table begins.

    ``lines`` has tables of an array by their number, as in ``("models", 0, "data")``.
    """

    path: Path
    content: dict[str, Any]
    lines: Mapping[Place, int]

    def without(self, names: Collection[str]) -> Tables:
        """All but these tables."""
        rest = {name: value for name, value in self.content.items() if name not in names}
        return replace(self, content=rest)

    def stated(self, place: Place) -> Place:
        """The innermost part of ``place`` that stands in the file."""
        return next((place[:n] for n in range(len(place), 0, -1) if place[:n] in self.lines), ())

    def line(self, place: Place) -> int | None:
        """The line on which the innermost part of ``place`` begins that stands in the file."""
        return self.lines.get(self.stated(place))

    def refusal(self, place: Place, message: str, advice: str | None = None) -> UsageError:
        """An error that begins with the file and the line."""
        line = self.line(place)
        where = str(self.path) if line is None else f"{self.path}:{line}"
        return UsageError(f"{where}: {message}", advice)


def read_tables(path: Path, name: str | None = None) -> Tables:
    """Read a TOML file.

    Args:
        name: what messages call it; its path unless given.

    Raises:
        UsageError: it cannot be read, or is not TOML.
    """
    name = name or str(path)
    try:
        text, content = read_toml(path)
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{name} is not TOML: {error}") from None
    return Tables(path, content, _lines(text))


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """A TOML file's text and content.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not TOML, or is larger or deeper than anything that anybody writes.
    """
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES:,} bytes")
    text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    try:
        content = tomllib.loads(text)
    except RecursionError:
        raise ValueError("its tables and arrays are nested too deeply") from None
    check_depth(content)
    return text, content


def check_depth(content: Any) -> None:
    """Refuse tables and lists that are nested more than fifty deep.

    Raises:
        ValueError: they are.
    """
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError("its tables and arrays are nested too deeply")


def checked(model: type[M], tables: Tables) -> M:
    """The file's content as a ``model``.

    Raises:
        UsageError: the first thing that is wrong, with its line; for an unknown key the nearest
            one that there is.
    """
    try:
        return model.model_validate(tables.content)
    except ValidationError as error:
        # An unknown key is the likelier cause of a missing one than the other way round.
        found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")[0]
    place = tuple(found["loc"])
    if found["type"] == "extra_forbidden":
        known = _keys(model, place[:-1])
        raise tables.refusal(
            place,
            f"unknown key {place[-1]!r}{did_you_mean(str(place[-1]), known)}",
            f"Keys here: {', '.join(known)}." if known else None,
        )
    # What a union's alternatives add to the place is no part of the file.
    stated = place if found["type"] == "missing" else tables.stated(place)
    named = ".".join(str(part) for part in stated if isinstance(part, str))
    said = found["msg"].removeprefix("Value error, ")
    raise tables.refusal(place, f"{named}: {said}" if named else said)


def _keys(model: type[BaseModel], place: Place) -> list[str]:
    """The keys that a table at ``place`` may have."""
    for part in place:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            continue  # a free name, such as a suite's: its table has the same keys as the others
        inner = _model_in(field.annotation)
        if inner is None:
            return []
        model = inner
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in get_args(annotation))
    return next((model for model in found if model is not None), None)


def _lines(text: str) -> dict[Place, int]:
    """The line of every key and table: statements are read one by one, as tomllib names no lines.

    ``text`` is TOML.
    """
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    begun: list[str] = []
    first = 1
    for number, line in enumerate(text.splitlines(), 1):
        if not begun:
            first = number
        begun.append(line)
        if len(begun) > _LONGEST:
            return found  # each line more is read with all before it
        try:
            statement = tomllib.loads("\n".join(begun))
        except tomllib.TOMLDecodeError:  # a value that goes on
            continue
        begun = []
        if not statement:
            continue
        if line.lstrip().startswith("[") and first == number:
            many = line.lstrip().startswith("[[")
            table = _placed(_places(statement)[-1], counts, many)
            found.setdefault(table, number)
        else:
            for place in _places(statement):
                found.setdefault(table + place, first)
    return found


def _placed(path: Place, counts: dict[Place, int], many: bool) -> Place:
    """The path with the numbers of the arrays' tables that it lies in."""
    place: Place = ()
    for at, name in enumerate(path):
        place = (*place, name)
        if many and at == len(path) - 1:
            counts[place] = counts.get(place, 0) + 1
        if place in counts:
            place = (*place, counts[place] - 1)
    return place


def _places(statement: dict[str, Any]) -> list[Place]:
    """``a.b = 1`` begins both ``a`` and ``a.b``; an inline table's keys are on its line too."""
    found: list[Place] = []
    for name, value in statement.items():
        found.append((name,))
        inner = value[0] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            found += [(name, *place) for place in _places(inner)]
    return found
