"""Tasks, the events that executors report of them, and the loop that hands tasks to workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from robaudit.batch.directory import is_done, pieces_kept
from robaudit.batch.jobs import Job

_TICK: Final = 0.5  # seconds that a pool is listened to


@dataclass(frozen=True)
class Task:
    """A job to be done in its folder.

    Attributes:
        threads: of the CPU, the same for every task of a run; ``None`` for torch's default.
    """

    key: str
    job: Job
    folder: Path
    threads: int | None = None


@dataclass(frozen=True)
class TaskEvent:
    """Something that happened to a task.

    Attributes:
        text: the worker that started it, the stage that is finished, or the reason of a failure.
        seconds: that the stage or the task took.
    """

    kind: Literal["started", "stage", "done", "failed"]
    key: str
    text: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Death:
    """The worker of a task died.

    Attributes:
        kind: what died; deaths are counted by kind.
        limit: deaths without progress after which the task has failed.
        reason: of that failure.
    """

    kind: str
    limit: int
    reason: str


class Deaths:
    """Counts the deaths of a task's workers since the task last made progress.

    A task makes progress when it keeps a finished piece of its work.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[int, int]] = {}

    def count(self, task: Task, kind: str = "") -> int:
        """Count one more death of that kind; returns how many there are."""
        kept = pieces_kept(task.folder)
        times, before = self._known.get((task.key, kind), (0, kept))
        times = 1 if kept > before else times + 1
        self._known[task.key, kind] = times, kept
        return times


class Pool(Protocol):
    """Workers, each with one task at a time."""

    @property
    def size(self) -> int:
        """How many tasks it can have."""

    def begin(self, task: Task) -> None:
        """Give the task to an idle worker."""

    def listen(self, seconds: float) -> list[tuple[str, TaskEvent | Death]]:
        """What happened to which task's key, waiting at most so long; the dead have no task."""

    def kill(self, key: str) -> None:
        """Kill the worker of that task."""

    def close(self) -> None:
        """Kill all workers."""


TaskEvents = Generator[TaskEvent | None, None, None]
Executor = Callable[[Sequence[Task]], TaskEvents]
"""Does the tasks, in any order, and yields their events; ``None`` when there was none for a while.
"""


def executor(start: Callable[[int], Pool], timeout: float | None = None) -> Executor:
    """An executor that hands tasks to a pool of workers.

    A task whose worker dies is begun again, since what killed the worker need not be the task; it
    has failed after :attr:`Death.limit` deaths without progress.

    Args:
        start: makes the pool, for so many tasks.
        timeout: seconds after which a task's worker is killed and the task has failed.
    """

    def run(tasks: Sequence[Task]) -> TaskEvents:
        waiting = deque(tasks)
        running: dict[str, Task] = {}
        since: dict[str, float] = {}
        deaths = Deaths()
        pool = start(len(tasks))

        def ended(kind: Literal["done", "failed"], key: str, text: str = "") -> TaskEvent:
            del running[key]
            return TaskEvent(kind, key, text, time.monotonic() - since.get(key, time.monotonic()))

        try:
            while waiting or running:
                while waiting and len(running) < pool.size:
                    task = waiting.popleft()
                    running[task.key] = task
                    since.pop(task.key, None)
                    pool.begin(task)
                heard = pool.listen(_TICK)
                if not heard:
                    yield None
                for key, said in heard:
                    task = running[key]
                    if isinstance(said, TaskEvent):
                        if said.kind == "started":
                            since[key] = time.monotonic()
                        elif said.kind in ("done", "failed"):
                            del running[key]
                        yield said
                    elif is_done(task.folder):  # the worker died before it could report that
                        yield ended("done", key)
                    elif deaths.count(task, said.kind) >= said.limit:
                        yield ended("failed", key, said.reason)
                    else:
                        waiting.appendleft(running.pop(key))
                for key in [key for key in running if key in since]:
                    if timeout is not None and time.monotonic() - since[key] > timeout:
                        pool.kill(key)
                        yield ended("failed", key, f"it took longer than {timeout:g} seconds")
        finally:
            pool.close()

    return run
