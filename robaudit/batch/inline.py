"""The executor that works in this process, one job after another."""

from __future__ import annotations

from collections.abc import Sequence

from robaudit.batch.tasks import Executor, Happening, Happenings, Task


def inline(device: str = "auto") -> Executor:
    """An executor without processes: no time limit, and what kills a job kills the run."""

    def run(tasks: Sequence[Task]) -> Happenings:
        from robaudit.batch.work import attempted

        for task in tasks:
            yield Happening("started", task.key, "this process")
            yield from attempted(task, task.folder, device)

    return run
