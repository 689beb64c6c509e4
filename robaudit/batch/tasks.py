"""What executors are given and what they tell: the same for all of them. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from robaudit.batch.directory import pieces_kept
from robaudit.batch.jobs import Job


@dataclass(frozen=True)
class Task:
    """A job to be done in its folder.

    Attributes:
        threads: of the CPU, the same for every task of a run; ``None`` leaves torch's.
    """

    key: str
    job: Job
    folder: Path
    threads: int | None = None


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


class Deaths:
    """How often a task's worker has died since the task last got on: then it may be its own doing.

    A task gets on where it keeps a piece of its work.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[int, int]] = {}

    def count(self, task: Task, kind: str = "") -> int:
        """Of that kind, this one included."""
        kept = pieces_kept(task.folder)
        times, before = self._known.get((task.key, kind), (0, kept))
        times = 1 if kept > before else times + 1
        self._known[task.key, kind] = times, kept
        return times


Happenings = Generator[Happening | None, None, None]
Executor = Callable[[Sequence[Task]], Happenings]
"""Does the tasks, in any order, and yields what happens; ``None`` while nothing does."""
