"""Executors on this machine: worker processes, each on a GPU or a share of the CPU's cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import cast

import torch

from robaudit.batch.tasks import Death, Executor, Task, TaskEvent, TaskEvents, executor
from robaudit.batch.work import attempted
from robaudit.engine.device import EVERY_GPU, resolve_devices

_DEATHS = 2  # of workers, without progress, after which a task has failed


def places(workers: int | None, device: str) -> list[str]:
    """The devices of each worker: GPUs in turn, several where there are fewer workers, or the CPU.

    Args:
        workers: how many; by default one for each GPU, or one where there is no GPU.
        device: ``auto``, ``cpu``; ``cuda`` or ``cuda:all`` for all GPUs; or those to use, as in
            ``cuda:0,cuda:1``.

    Raises:
        UsageError: there is no such device.
    """
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        device = EVERY_GPU
    found = resolve_devices(device)
    if found[0].type == "cpu":
        return [device] * (workers or 1)
    return _dealt([str(gpu) for gpu in found], workers or len(found))


def _dealt(gpus: Sequence[str], workers: int) -> list[str]:
    if workers >= len(gpus):
        return [gpus[at % len(gpus)] for at in range(workers)]
    return [",".join(gpus[at::workers]) for at in range(workers)]


def _places_for(tasks: int, where: Sequence[str]) -> list[str]:
    """The devices of as many workers as there are tasks: they share the GPUs of all others."""
    gpus = dict.fromkeys(gpu for one in where for gpu in one.split(",") if gpu.startswith("cuda"))
    if tasks >= len(where) or not gpus:
        return list(where[:tasks])
    return _dealt(list(gpus), tasks)


def threads_each(workers: int) -> int:
    """The threads of a worker: its share of the cores, of which torch's default is the most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores or 1, torch.get_num_threads()) // workers)


def in_process(device: str = "auto") -> Executor:
    """An executor in this process, one task after another, on the devices of one worker.

    It has no time limit, and what kills a task kills the run.
    """

    def run(tasks: Sequence[Task]) -> TaskEvents:
        (where,) = places(1, device)
        for task in tasks:
            yield TaskEvent("started", task.key, "this process")
            yield from attempted(task, task.folder, where)

    return run


def local(where: Sequence[str], timeout: float | None = None) -> Executor:
    """An executor with a process for each entry, and not more than there are tasks.

    Args:
        where: the devices of each process; those of processes without a task are the others'.
        timeout: seconds after which a task's worker is killed and the task has failed.
    """
    return executor(lambda tasks: _Processes(_places_for(tasks, where)), timeout)


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    key: str | None = None  # of its task

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.key = None


class _Processes:
    """A pool of worker processes; one that died is replaced when it is needed."""

    def __init__(self, where: Sequence[str]) -> None:
        self._where = where
        self._workers = [_start(device, at) for at, device in enumerate(where)]

    @property
    def size(self) -> int:
        return len(self._workers)

    def begin(self, task: Task) -> None:
        at, worker = next((at, one) for at, one in enumerate(self._workers) if one.key is None)
        if not worker.process.is_alive():
            worker.end()
            worker = self._workers[at] = _start(self._where[at], at)
        worker.key = task.key
        with suppress(OSError):  # it may have just died: then its pipe has ended
            worker.pipe.send(task)

    def listen(self, seconds: float) -> list[tuple[str, TaskEvent | Death]]:
        heard: list[tuple[str, TaskEvent | Death]] = []
        busy = {one.pipe: one for one in self._workers if one.key is not None}
        for pipe in wait(list(busy), seconds):
            worker = busy[cast(Connection, pipe)]
            key = worker.key
            assert key is not None
            try:
                event: TaskEvent = worker.pipe.recv()
            except (EOFError, OSError):  # the process has ended
                worker.process.join(5)  # before it is killed, so that the exit code is its own
                worker.end()
                heard.append((key, Death("worker", _DEATHS, _death(worker.process.exitcode))))
                continue
            if event.kind in ("done", "failed"):
                worker.key = None
            heard.append((key, event))
        return heard

    def kill(self, key: str) -> None:
        next(worker for worker in self._workers if worker.key == key).end()

    def close(self) -> None:
        for worker in self._workers:
            worker.end()


def _start(device: str, at: int) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    on = "" if device in ("auto", "cpu") else f" on {device}"
    args = (theirs, device, f"worker {at + 1}{on}", sys.argv)
    process = context.Process(target=_serve, args=args, daemon=True)
    process.start()
    theirs.close()  # so that the pipe ends when the worker does
    return _Worker(process, ours)


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
    """A worker process: receives tasks and sends their events until the driver ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver is interrupted too, and kills us
    threading.Thread(target=_end_with_driver, daemon=True).start()
    sys.argv = argv
    while True:
        task: Task = pipe.recv()
        pipe.send(TaskEvent("started", task.key, name))
        for event in attempted(task, task.folder, device):
            pipe.send(event)


def _end_with_driver() -> None:
    """End with the driver: the next driver may give the same task to another worker."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)
