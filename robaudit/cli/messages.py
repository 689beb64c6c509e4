"""What the command line says beside its results: on stderr, one line and one of advice."""

from __future__ import annotations

import sys


def say(message: str, advice: str | None = None) -> None:
    """Print a message and what to do about it; text from files is made harmless."""
    from robaudit.report.text import plain

    print(f"robaudit: {plain(message)}", file=sys.stderr)  # noqa: T201
    if advice:
        print(f"          {plain(advice)}", file=sys.stderr)  # noqa: T201
