"""The command that a report records: as it would be typed to get the same numbers again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

_ELSEWHERE = ("ENVIRONMENT", "DEFAULT_MAP")


@contextmanager
def recorded(ctx: typer.Context) -> Iterator[None]:
    """While the command runs, ``sys.argv`` is :func:`resolved`: provenance takes it from there."""
    before = sys.argv
    sys.argv = ["robaudit", *resolved(ctx, before[1:])]
    try:
        yield
    finally:
        sys.argv = before


def resolved(ctx: typer.Context, words: Sequence[str]) -> list[str]:
    """The words typed, without ``--config``, and what a file or the environment said as options."""
    typed = list(_without_config(words))
    options = []
    for parameter in ctx.command.params:
        source: Any = ctx.get_parameter_source(str(parameter.name))
        if parameter.name == "config" or source is None or source.name not in _ELSEWHERE:
            continue
        options += _spelled(parameter, ctx.params.get(str(parameter.name)))
    return [*typed, *options]


def _without_config(words: Sequence[str]) -> Iterator[str]:
    skip = False
    for word in words:
        if skip or word == "--config" or word.startswith("--config="):
            skip = not skip and word == "--config"
            continue
        yield word


def _spelled(parameter: Any, value: Any) -> list[str]:
    name = next(word for word in parameter.opts if word.startswith("--"))
    if isinstance(value, bool):
        off = [word for word in parameter.secondary_opts if word.startswith("--")]
        return [name] if value else off[:1]
    several = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return [part for one in several for part in (name, str(one))]
