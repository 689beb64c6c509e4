"""How long computations show their progress and messages, whoever shows them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from robaudit.errors import RobauditError
from robaudit.types import Progress

Watch = Callable[[str], AbstractContextManager[Progress | None]]
"""Opens a progress display for a named piece of work."""


def no_watch(_: str) -> AbstractContextManager[Progress | None]:
    """The :data:`Watch` that shows nothing."""
    return nullcontext()


class Display:
    """Shows nothing; a caller that has a screen derives from it."""

    def note(self, message: str, advice: str | None = None) -> None:
        """Show something of interest, which may be left out."""

    def warn(self, message: str, advice: str | None = None) -> None:
        """Show something that matters to the results."""

    def failed(self, source: str, error: RobauditError) -> None:
        """Show why one checkpoint of several has no result."""

    def bars(self, name: str) -> AbstractContextManager[Watch]:
        """Progress bars of the work on ``name``."""
        return nullcontext(no_watch)
