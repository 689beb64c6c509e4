"""The driver: which jobs are left, who does them, and what is written down of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch

from robaudit.batch import log
from robaudit.batch.directory import Directory, ListedJob, State, is_done, tidy
from robaudit.batch.lock import locked
from robaudit.batch.tasks import Executor, Task, TaskEvent


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        held_back: jobs that failed in an earlier run and were not tried again.
    """

    state: State
    held_back: int

    @property
    def complete(self) -> bool:
        """Whether every row has a report and every measurement a value."""
        reports = [self.state.report(row.key) for row in self.state.rows]
        return all(report is not None and not report.failed for report in reports)


def drive(
    directory: Directory,
    rows: Sequence[ListedJob],
    executor: Executor,
    *,
    workers: int,
    threads: int | None = None,
    retry_failed: bool = False,
    look: Callable[[TaskEvent | None], None] = lambda _: None,
) -> Outcome:
    """Do what is not done yet of the rows' jobs.

    Args:
        workers: how many tasks the executor has in hand at once, for the time left.
        threads: of the CPU, for every process of a run that begins here; by default torch's own. A
            run that was begun before goes on with the threads that it has: rounding depends on it.
        retry_failed: also what failed in an earlier run.
        look: told everything that happens, after it is written down; ``None`` twice a second.

    Raises:
        UsageError: another driver has the run, or it cannot be written.
    """
    with locked(directory.lock):
        log.mend(directory.journal)
        threads = directory.state().threads or threads or torch.get_num_threads()
        directory.note("driver", pid=os.getpid(), workers=workers, threads=threads)
        _list(directory, rows)
        for row in {row.key: row for row in rows if row.reason}.values():
            directory.note("failed", key=row.key, reason=row.reason, seconds=0.0)
            look(TaskEvent("failed", row.key, row.reason))
        tasks, held_back = _left(directory, rows, retry_failed, threads)
        by_key = {task.key: task for task in tasks}
        with closing(executor(tasks)) as events:  # ends its workers, whatever happens here
            for event in events:
                if event is not None:
                    _write_down(directory, event, by_key[event.key])
                look(event)
        return Outcome(directory.state(), held_back)


def _list(directory: Directory, rows: Sequence[ListedJob]) -> None:
    """Write down the rows that the journal does not have yet."""
    there = {row.job: row.key for row in directory.state().rows}
    for row in rows:
        if there.get(row.job) != row.key:
            directory.note(
                "listed",
                key=row.key,
                job=row.job.model_dump(mode="json"),
                stages=row.stages,
                published=row.published,
            )


def _left(
    directory: Directory, rows: Sequence[ListedJob], retry_failed: bool, threads: int
) -> tuple[list[Task], int]:
    """The tasks that are to be done, and how many failed before and are left as they are."""
    state = directory.state()
    tasks: dict[str, Task] = {}
    held_back: set[str] = set()
    for row in rows:
        if row.reason or row.key in tasks:
            continue
        task = Task(row.key, row.job, directory.folder(row), threads)
        if is_done(task.folder):
            if row.key not in state.done:  # a driver was killed before it wrote that down
                _write_down(directory, TaskEvent("done", row.key), task)
        elif row.key in state.failed and not retry_failed:
            held_back.add(row.key)
        else:
            tasks[row.key] = task
    return list(tasks.values()), len(held_back)


def _write_down(directory: Directory, event: TaskEvent, task: Task) -> None:
    match event.kind:
        case "started":
            directory.note("started", key=task.key, where=event.text)
        case "stage":
            directory.note("stage", key=task.key, stage=event.text, seconds=event.seconds)
        case "failed":
            directory.note("failed", key=task.key, reason=event.text, seconds=event.seconds)
        case "done":
            tidy(task.folder)
            directory.note("done", key=task.key, seconds=event.seconds)
