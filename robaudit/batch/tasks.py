"""What executors are given and what they tell: the same for all of them. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robaudit.batch.jobs import Job


@dataclass(frozen=True)
class Task:
    """A job to be done in its folder."""

    key: str
    job: Job
    folder: Path


@dataclass(frozen=True)
class Happening:
    """Something that happened to a task.

    Attributes:
        text: the stage that is finished, the reason of a failure, or where a task was begun.
        seconds: that the stage or the task took.
    """

    kind: Literal["started", "stage", "done", "failed"]
    key: str
    text: str = ""
    seconds: float = 0.0


Happenings = Generator[Happening | None, None, None]
Executor = Callable[[Sequence[Task]], Happenings]
"""Does the tasks, in any order, and yields what happens; ``None`` while nothing does."""
