"""The executor that works in this process, one job after another."""

from __future__ import annotations

import time
from collections.abc import Sequence

from robaudit.batch.tasks import Executor, Happening, Happenings, Task


def inline(device: str = "auto") -> Executor:
    """An executor without processes: no time limit, and what kills a job kills the run."""

    def run(tasks: Sequence[Task]) -> Happenings:
        from robaudit.batch.work import attempt

        for task in tasks:
            yield Happening("started", task.key, "this process")
            clock = time.perf_counter()
            told: list[Happening] = []
            failure = attempt(
                task.job, task.folder, device,
                lambda stage, seconds, key=task.key, told=told: told.append(  # type: ignore[misc]
                    Happening("stage", key, stage, seconds)
                ),
            )  # fmt: skip
            yield from told
            seconds = time.perf_counter() - clock
            if failure is None:
                yield Happening("done", task.key, "", seconds)
            else:
                yield Happening("failed", task.key, failure.reason, seconds)

    return run
