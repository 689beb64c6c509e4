"""Ray as the executor: a task a job, on this machine or on a cluster.

A task is sent its job and the files' names, never data or weights: both must lie at the same place
on every node. Where the run's folder does too, a task works in it and goes on where a killed one
stopped; elsewhere it works in a folder of its own node, and the finished report is sent back.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robaudit.batch.directory import REPORT, is_done
from robaudit.batch.jobs import Job
from robaudit.batch.tasks import Executor, Happening, Happenings, Task
from robaudit.errors import UsageError
from robaudit.report import report_folder

_TICK = 0.5  # seconds between two looks
_RETRIES = 1  # of a task whose worker or node has died


@dataclass(frozen=True)
class _Done:
    """What a task sends back.

    Attributes:
        files: the report's, where the driver cannot see them.
    """

    reason: str
    seconds: float
    files: dict[str, bytes]


def on_ray(
    address: str | None, workers: int | None, device: str, timeout: float | None
) -> tuple[Executor, int]:
    """An executor on a cluster, and how many tasks it runs at once.

    Args:
        address: of a cluster that runs, or ``auto``; without one Ray is started on this machine.
        workers: tasks at once at most; by default as many as there are GPUs, or one a CPU's core.
        device: ``cpu``, else each task gets a GPU where the cluster has some.

    Raises:
        UsageError: Ray is not installed, or no cluster is there.
    """
    if workers == 0:
        raise UsageError("--workers 0 works in this process, without Ray")
    ray = _ray()
    if not ray.is_initialized():
        try:
            ray.init(
                address=address,
                num_cpus=workers if address is None else None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
            )
        except Exception as error:
            line = next(iter(str(error).splitlines()), type(error).__name__)
            raise UsageError(f"Ray does not start: {line}", "Check --address.") from error
    there = ray.cluster_resources()
    gpus = 0 if device == "cpu" else int(there.get("GPU", 0))
    at_once = min(workers or sys.maxsize, gpus or int(there.get("CPU", 1)))
    threads = max(1, int(there.get("CPU", 1)) // max(1, at_once)) if gpus else 1
    options: dict[str, Any] = {"max_retries": _RETRIES, "num_cpus": 1}
    if gpus:
        options["num_gpus"] = 1
    # Ray shows a task the one GPU it may use, which torch then calls cuda:0.
    where = "cuda:0" if gpus else "cpu"
    remote = ray.remote(_task).options(**options)

    def run(tasks: Sequence[Task]) -> Happenings:
        waiting = list(reversed(tasks))
        running: dict[Any, tuple[Task, float]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    task = waiting.pop()
                    mark = _mark(task.folder)
                    sent = remote.remote(task.job, str(task.folder), mark, where, threads, sys.argv)
                    running[sent] = task, time.monotonic()
                    yield Happening("started", task.key, "Ray")
                ready, _ = ray.wait(list(running), timeout=_TICK)
                if not ready:
                    yield None
                for sent in ready:
                    task, since = running.pop(sent)
                    yield _received(ray, sent, task, since)
                for sent, (task, since) in list(running.items()):
                    if timeout is not None and time.monotonic() - since > timeout:
                        ray.cancel(sent, force=True)
                        del running[sent]
                        yield Happening(
                            "failed", task.key, f"it took longer than {timeout:g} seconds", timeout
                        )
        finally:
            for sent in running:
                ray.cancel(sent, force=True)

    return run, at_once


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "Ray is not installed", "Install it: pip install 'robaudit[ray]'"
        ) from error
    return ray


def _received(ray: Any, sent: Any, task: Task, since: float) -> Happening:
    try:
        done: _Done = ray.get(sent)
    except Exception as error:  # Ray's own: the worker or its node died, or memory ran out
        line = next((line for line in str(error).splitlines() if line.strip()), "")
        seconds = time.monotonic() - since
        reason = f"its Ray worker died, twice: {type(error).__name__}: {line[:200]}"
        return Happening("failed", task.key, reason, seconds)
    if done.reason:
        return Happening("failed", task.key, done.reason, done.seconds)
    if not is_done(task.folder):
        task.folder.mkdir(parents=True, exist_ok=True)
        with report_folder(task.folder / REPORT) as target:
            for name, data in done.files.items():
                (target / name).write_bytes(data)
    return Happening("done", task.key, "", done.seconds)


def _mark(folder: Path) -> bytes:
    """What a node must see in the run's folder to know that it is the driver's own."""
    return (folder.parent.parent / "journal.jsonl").read_bytes()[:200]


def _task(job: Job, folder: str, mark: bytes, device: str, threads: int, argv: list[str]) -> _Done:
    """Runs on a node."""
    import torch

    from robaudit.batch.work import attempt

    sys.argv = argv
    torch.set_num_threads(threads)
    clock = time.perf_counter()
    place = Path(folder)
    try:
        shared = _mark(place) == mark
    except OSError:
        shared = False
    if shared:
        failure = attempt(job, place, device)
        return _Done(failure.reason if failure else "", time.perf_counter() - clock, {})
    own = Path(tempfile.mkdtemp(prefix="robaudit-"))
    try:
        failure = attempt(job, own, device)
        if failure is not None:
            return _Done(failure.reason, time.perf_counter() - clock, {})
        files = {path.name: path.read_bytes() for path in (own / REPORT).iterdir()}
        return _Done("", time.perf_counter() - clock, files)
    finally:
        shutil.rmtree(own, ignore_errors=True)
