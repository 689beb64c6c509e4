"""What the command line says beside its results: on stderr, one line and one of advice."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from robaudit.errors import RobauditError


def say(message: str, advice: str | None = None) -> None:
    """Print a message and what to do about it; text from files is made harmless."""
    from robaudit.report.text import plain

    print(f"robaudit: {plain(message)}", file=sys.stderr)  # noqa: T201
    if advice:
        print(f"          {plain(advice)}", file=sys.stderr)  # noqa: T201


def say_of(checkpoint: str, error: RobauditError) -> None:
    """Say why one checkpoint of several has no result."""
    named = checkpoint in error.message
    say(error.message if named else f"{checkpoint}: {error.message}", error.advice)


def console() -> Console:
    """Where tables go: as wide as the terminal, or 100 columns where there is none."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=100)
