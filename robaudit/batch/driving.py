"""The driver of a run: hands unfinished jobs to an executor and keeps the journal."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import torch

from robaudit.batch.directory import Directory, ListedJob, State, is_done, tidy
from robaudit.batch.lock import locked
from robaudit.batch.tasks import Executor, Task, TaskEvent


@dataclass(frozen=True)
class RunOutcome:
    """What a driver leaves.

    Attributes:
        held_back: jobs that failed in an earlier run and were not tried again.
    """

    state: State
    held_back: int

    @property
    def complete(self) -> bool:
        """Whether every job has a report in which no measurement failed."""
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
) -> RunOutcome:
    """Do the jobs that are not done.

    Args:
        workers: how many tasks the executor does at the same time.
        threads: of the CPU, for every process of a new run; by default torch's. A run that is
            resumed keeps the threads that it has, since rounding depends on them.
        retry_failed: do also the jobs that failed in an earlier run.
        look: called with every event after it is in the journal, and with ``None`` when there was
            none for a while.

    Raises:
        UsageError: another process drives the run, or the run cannot be written.
    """
    with locked(directory.lock):
        threads = directory.state().threads or threads or torch.get_num_threads()
        directory.note("driver", pid=os.getpid(), workers=workers, threads=threads)
        _list(directory, rows)
        for row in {row.key: row for row in rows if row.reason}.values():
            event = TaskEvent("failed", row.key, row.reason)
            _write_down(directory, event)
            look(event)
        tasks, held_back = _left(directory, rows, retry_failed, threads)
        folders = {task.key: task.folder for task in tasks}
        with closing(executor(tasks)) as events:  # kills its workers if this is interrupted
            for happened in events:
                if happened is not None:
                    if happened.kind == "done":
                        tidy(folders[happened.key])
                    _write_down(directory, happened)
                look(happened)
        return RunOutcome(directory.state(), held_back)


def _list(directory: Directory, rows: Sequence[ListedJob]) -> None:
    """Write down the rows that the journal does not have yet."""
    there = {row.job.listed: row.known for row in directory.state().rows}
    for row in rows:
        if there.get(row.job.listed) != row.known:
            directory.note(
                "listed",
                key=row.key,
                job=row.job.model_dump(mode="json"),
                stages=row.stages,
                published=row.published,
                run=row.run,
                recorded=row.recorded,
            )


def _left(
    directory: Directory, rows: Sequence[ListedJob], retry_failed: bool, threads: int
) -> tuple[list[Task], int]:
    """The tasks to be done, and how many are held back because they failed before."""
    state = directory.state()
    tasks: dict[str, Task] = {}
    held_back: set[str] = set()
    for row in rows:
        if row.reason or row.key in tasks:
            continue
        task = Task(row.key, row.job, state.folders[row.key], threads)
        if is_done(task.folder):
            if row.key not in state.done:  # a driver was killed before it noted that
                tidy(task.folder)
                _write_down(directory, TaskEvent("done", row.key))
        elif row.key in state.failed and not retry_failed:
            held_back.add(row.key)
        else:
            tasks[row.key] = task
    return list(tasks.values()), len(held_back)


_TEXT = {"started": "where", "stage": "stage", "failed": "reason"}


def _write_down(directory: Directory, event: TaskEvent) -> None:
    text = {_TEXT[event.kind]: event.text} if event.kind in _TEXT else {}
    directory.note(event.kind, key=event.key, seconds=event.seconds, **text)
