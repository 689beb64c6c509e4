"""What the command line says beside its results: on stderr, a message and a hint."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from robaudit.errors import OpenQuestionError, RobauditError, UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from robaudit.report.table import Table


def say(message: str, advice: str | None = None, lines: Sequence[str] = ()) -> None:
    """Print a message, a few lines below it, and after a blank line what to do about it.

    Text from files is made harmless.
    """
    from robaudit.report.text import plain

    print(f"robaudit: {plain(message)}", file=sys.stderr)  # noqa: T201
    for line in lines:
        print(f"            {_visible(line)}", file=sys.stderr)  # noqa: T201
    if advice:
        print(f"\nhint: {plain(advice)}", file=sys.stderr)  # noqa: T201


def message_of(error: RobauditError) -> str:
    """The message of an error; a field is written as the option that sets it."""
    field = error.field if isinstance(error, UsageError) else None
    if field is None:
        return error.message
    return f"--{field.replace('_', '-')}{error.message.removeprefix(field)}"


def _visible(line: str) -> str:
    """Columns stay where they are; what is no visible character becomes a space."""
    return "".join(c if c.isprintable() else " " for c in line)


def say_of(checkpoint: str, error: RobauditError) -> None:
    """Say why one checkpoint of several has no result."""
    message = message_of(error)
    named = checkpoint in message
    say(message if named else f"{checkpoint}: {message}", error.advice, candidates_of(error))


def name_nearest(error: BaseException) -> None:
    """Add the nearest choice to a usage error about a word that is none of an option's choices."""
    said = getattr(error, "message", None)
    found = re.fullmatch(r"(?:Value error, )?('(.*)' is not one of (.*))\.", str(said), re.DOTALL)
    if found is not None:
        choices = re.findall(r"'([^']*)'", found[3])
        near = did_you_mean(found[2], choices)
        error.message = found[1] + (near or ".")  # type: ignore[attr-defined]


def candidates_of(error: RobauditError) -> tuple[str, ...]:
    """The table of an open question."""
    return error.candidates if isinstance(error, OpenQuestionError) else ()


def show_tables(*tables: Table) -> None:
    """Print tables on stdout: in colour on a terminal, as plain text elsewhere."""
    from robaudit.report.formats.terminal import terminal_view

    console().print(terminal_view(*tables))


def console() -> Console:
    """Where tables go: as wide as the terminal, or 100 columns where there is none."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=100)
