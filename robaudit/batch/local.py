"""Worker processes on this machine: one a GPU, or one a share of the CPU's cores.

A worker that dies is replaced. Its task is begun once more, going on where it was, since what
killed the worker need not have been the task; a second death, without any work kept in between, is
the task's end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch

from robaudit.batch.tasks import Deaths, Executor, Happening, Happenings, Task
from robaudit.batch.work import attempted

_TICK = 0.5  # seconds between two looks at the clock
_DEATHS = 2


def places(workers: int | None, device: str) -> list[str]:
    """The device of each worker: all GPUs in turn, or the CPU; one unless more are asked for.

    Args:
        workers: how many; by default one a GPU, and one where there is none.
        device: ``auto``, ``cpu``, ``cuda`` (all GPUs) or ``cuda:i``.
    """
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        count = torch.cuda.device_count()
        return [f"cuda:{at % count}" for at in range(workers or count)]
    return [device] * (workers or 1)


def threads_each(workers: int) -> int:
    """A worker's share of the CPU's cores, as far as torch would take them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, torch.get_num_threads()) // workers)


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    task: Task | None = None
    since: float | None = None  # when it began with the task


def in_process(device: str = "auto") -> Executor:
    """An executor in this process, one task after another.

    It has no time limit, and what kills a task kills the run.
    """

    def run(tasks: Sequence[Task]) -> Happenings:
        for task in tasks:
            yield Happening("started", task.key, "this process")
            yield from attempted(task, task.folder, device)

    return run


def local(where: Sequence[str], timeout: float | None = None) -> Executor:
    """An executor with a process at each place.

    Args:
        where: a device for each process.
        timeout: seconds after which a task's worker is killed and the task has failed.
    """

    def run(tasks: Sequence[Task]) -> Happenings:
        waiting = deque(tasks)
        deaths = Deaths()
        workers = [_start(device, at) for at, device in enumerate(where[: len(tasks)])]
        try:
            while waiting or any(worker.task for worker in workers):
                for at, worker in enumerate(workers):
                    if worker.task is not None or not waiting:
                        continue
                    if not worker.process.is_alive():
                        _end(worker)
                        workers[at] = _start(where[at], at)
                    _give(workers[at], waiting.popleft())
                busy = [worker for worker in workers if worker.task is not None]
                ready = wait([worker.pipe for worker in busy], _TICK)
                if not ready:
                    yield None
                for worker in busy:
                    happened = None
                    if worker.pipe in ready:
                        happened = _heard(worker)
                    elif _late(worker, timeout):
                        happened = _over(worker, f"it took longer than {timeout:g} seconds")
                        _end(worker)
                    if (task := worker.task) is not None and not worker.process.is_alive():
                        if deaths.count(task) < _DEATHS:
                            waiting.appendleft(task)
                            worker.task = None
                        else:
                            happened = _over(worker, _death(worker.process.exitcode))
                    if happened is not None:
                        yield happened
        finally:
            for worker in workers:
                _end(worker)

    return run


def _start(device: str, at: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    on = "" if device in ("auto", "cpu") else f" on {device}"
    said = (theirs, device, f"worker {at + 1}{on}", sys.argv)
    process = context.Process(target=_serve, args=said, daemon=True)
    process.start()
    theirs.close()  # the end of the worker is then the end of the pipe
    return _Worker(process, ours)


def _give(worker: _Worker, task: Task) -> None:
    worker.task, worker.since = task, None
    with suppress(OSError):  # it may have just died, which is heard of next
        worker.pipe.send(task)


def _heard(worker: _Worker) -> Happening | None:
    """What a worker says; the end of its pipe is its end."""
    try:
        happened: Happening = worker.pipe.recv()
    except (EOFError, OSError):
        worker.process.join(5)  # so that its exit code is its own
        _end(worker)
        return None
    if happened.kind == "started":
        worker.since = time.monotonic()
    if happened.kind in ("done", "failed"):
        worker.task = None
    return happened


def _end(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()
    worker.pipe.close()


def _late(worker: _Worker, timeout: float | None) -> bool:
    if worker.task is None or worker.since is None or timeout is None:
        return False
    return time.monotonic() - worker.since > timeout


def _over(worker: _Worker, reason: str) -> Happening:
    assert worker.task is not None
    key, worker.task = worker.task.key, None
    seconds = 0.0 if worker.since is None else time.monotonic() - worker.since
    return Happening("failed", key, reason, seconds)


def _death(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return (
            "its worker was killed (signal 9), twice: as the system does when memory runs out; "
            "fewer workers or fewer examples may fit"
        )
    if code is not None and code < 0:
        return f"its worker died of signal {-code} ({signal.strsignal(-code)}), twice"
    return f"its worker ended with exit code {code}, twice"


def _serve(pipe: Connection, device: str, name: str, argv: list[str]) -> None:
    """A worker's life: tasks in, happenings out, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver is interrupted too, and ends us
    threading.Thread(target=_end_with_driver, daemon=True).start()
    sys.argv = argv
    while True:
        task: Task = pipe.recv()
        pipe.send(Happening("started", task.key, name))
        for happened in attempted(task, task.folder, device):
            pipe.send(happened)


def _end_with_driver() -> None:
    """Work for a driver that is gone would meet that of the next one."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)
