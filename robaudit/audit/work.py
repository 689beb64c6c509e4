"""How much of an audit's planned work is done, told while it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from robaudit.types import Progress


class Work:
    """The passes of a plan, counted as they are planned: at most.

    A probe that is finished counts with all that was planned for it, however little it took; of
    the running one its attacks count as far as they are.

    Args:
        total: passes of the whole plan; 0 where nobody is told.
        tell: is told the passes done and the total.
    """

    def __init__(self, total: int = 0, tell: Progress | None = None) -> None:
        self._total, self._tell = total, tell
        self._before = self._own = 0  # of finished probes, and planned for the running one
        self._inside = 0.0  # done of the running one

    @contextmanager
    def probe(self, passes: int) -> Iterator[None]:
        """A probe for which so many passes are planned runs in this block."""
        self._own, self._inside = passes, 0.0
        try:
            yield
        finally:
            self._before, self._own, self._inside = self._before + passes, 0, 0.0
            self._told()

    def through(self, passes: int, bar: Progress | None) -> Progress | None:
        """A callback for an attack of so many passes that tells its ``bar``, and this."""
        if self._tell is None:
            return bar
        before = self._inside

        def progress(done: int, total: int) -> None:
            if bar is not None:
                bar(done, total)
            self._inside = min(self._own, before + passes * done / max(1, total))
            self._told()

        return progress

    def _told(self) -> None:
        if self._tell is not None and self._total > 0:
            self._tell(round(self._before + self._inside), self._total)
