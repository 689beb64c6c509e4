"""How long computations show their progress and messages, whoever shows them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from robaudit.errors import RobauditError
from robaudit.types import Progress

_TELLING = 0.05  # share of the work after which the time of the rest is worth telling

Watch = Callable[[str], AbstractContextManager[Progress | None]]
"""Opens a progress display for a named piece of work."""


def no_watch(_: str) -> AbstractContextManager[Progress | None]:
    """The :data:`Watch` that shows nothing."""
    return nullcontext()


class Whole:
    """How far a run over one model or several is, and the time left for all of it.

    The time is that of the work done, spread over all: each model counts alike, its own work as
    :attr:`progress` is told it.

    Args:
        models: of the run.
        clock: seconds.
    """

    def __init__(self, models: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self.models, self._clock = models, clock
        self._began = clock()
        self._model = 0  # the present one, from 1
        self._end: float | None = None

    def begin(self) -> None:
        """The next model begins."""
        self._model += 1
        self.progress(0, 1)

    def progress(self, done: int, total: int) -> None:
        """So much of the present model's work is done."""
        share = (max(self._model, 1) - 1 + min(1.0, done / max(1, total))) / self.models
        now = self._clock()
        self._end = None
        if share >= _TELLING:
            self._end = now + (now - self._began) * max(0.0, 1 - share) / share

    def left(self) -> float | None:
        """Seconds until all is done; ``None`` while a twentieth of it is not, or once it is late.

        >>> whole = Whole(4, clock=iter([0.0, 0.0, 30.0, 40.0]).__next__)
        >>> whole.begin(), whole.begin(), whole.left()
        (None, None, 80.0)
        """
        if self._end is None:
            return None
        left = self._end - self._clock()
        return left if left > 0 else None

    def line(self) -> str:
        """Both in words; empty where there is nothing to say.

        >>> whole = Whole(4, clock=iter([0.0, 0.0, 30.0, 40.0]).__next__)
        >>> whole.begin(), whole.begin(), whole.line()
        (None, None, 'model 2 of 4, about 1 min 20 s left for the whole run')
        """
        parts = [f"model {self._model} of {self.models}"] if self.models > 1 else []
        if (left := self.left()) is not None:
            parts.append(f"about {duration(left)} left for the whole run")
        return ", ".join(parts)


class Display:
    """Shows nothing; a caller that has a screen derives from it."""

    def note(self, message: str, advice: str | None = None) -> None:
        """Show something of interest, which may be left out."""

    def warn(self, message: str, advice: str | None = None) -> None:
        """Show something that matters to the results."""

    def failed(self, source: str, error: RobauditError) -> None:
        """Show why one checkpoint of several has no result."""

    def bars(self, name: str, whole: Whole | None = None) -> AbstractContextManager[Watch]:
        """Progress bars of the work on ``name``, and how far the run is that it is a part of."""
        return nullcontext(no_watch)


def duration(seconds: float) -> str:
    """Seconds in words, in at most two units.

    >>> duration(3), duration(90), duration(7300), duration(200000)
    ('3 s', '1 min 30 s', '2 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    for unit, size, smaller, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
