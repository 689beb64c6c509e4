"""Ray as the executor: a task a job, on this machine or on a cluster.

A task is sent its job and the files' names, never data or weights: both must lie at the same place
on every node. Where the run's folder does too, a task works in it and goes on where a killed one
stopped; elsewhere it works in a folder of its own node, and the finished report is sent back.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robaudit.batch.directory import REPORT, is_done
from robaudit.batch.tasks import Death, Executor, Task, TaskEvent, executor
from robaudit.batch.work import attempted
from robaudit.errors import UsageError
from robaudit.report import report_folder

# Deaths without progress after which a task has failed. A node seldom dies because of its task, but
# a task must not kill all nodes one by one.
_WORKERS, _NODES = 2, 5

# The report's files by name, from a node that does not see the run's folder.
_Files = dict[str, bytes]


def on_ray(
    address: str | None, workers: int | None, device: str, timeout: float | None
) -> tuple[Executor, int, int]:
    """An executor on a cluster, how many tasks it runs at once, and the cores that each has.

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
                address=address or "local",  # not one that another program has left running
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
    # Ray's own retries would count a node's death like a task's, and begin without a word.
    options: dict[str, Any] = {"max_retries": 0, "num_cpus": 1, "num_returns": "streaming"}
    if gpus:
        options["num_gpus"] = 1
    # Ray shows a task the one GPU it may use, which torch then calls cuda:0.
    where = "cuda:0" if gpus else "cpu"
    remote = ray.remote(_task).options(**options)
    pool = executor(lambda _: _Cluster(ray, remote, where, at_once), timeout)
    return pool, at_once, threads


class _Cluster:
    """A pool of Ray tasks."""

    def __init__(self, ray: Any, remote: Any, device: str, size: int) -> None:
        self._ray, self._remote, self._device, self.size = ray, remote, device, size
        self._streams: dict[Any, Task] = {}

    def begin(self, task: Task) -> None:
        stream = self._remote.remote(task, _mark(task.folder), self._device, sys.argv)
        self._streams[stream] = task

    def listen(self, seconds: float) -> list[tuple[str, TaskEvent | Death]]:
        heard: list[tuple[str, TaskEvent | Death]] = []
        ready, _ = self._ray.wait(list(self._streams), timeout=seconds)
        for stream in ready:
            task = self._streams[stream]
            try:
                said = self._ray.get(next(stream))
            except (StopIteration, self._ray.exceptions.RayError) as error:
                said = _end_of(self._ray, task.key, error)
            if not isinstance(said, TaskEvent | Death):
                _write(task.folder, said)
                continue
            if isinstance(said, Death) or said.kind in ("done", "failed"):
                del self._streams[stream]
            heard.append((task.key, said))
        return heard

    def kill(self, key: str) -> None:
        stream = next(stream for stream, task in self._streams.items() if task.key == key)
        self._ray.cancel(stream, force=True)
        del self._streams[stream]

    def close(self) -> None:
        for stream in self._streams:
            self._ray.cancel(stream, force=True)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "Ray is not installed", "Install it: pip install 'robaudit[ray]'"
        ) from error
    return ray


def _end_of(ray: Any, key: str, error: Exception) -> TaskEvent | Death:
    """Why a task's stream of events ended."""
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    said = f"{type(error).__name__}: {line[:200]}"
    if isinstance(error, ray.exceptions.RayTaskError):  # nothing died: it cannot run there
        return TaskEvent("failed", key, f"Ray cannot run it: {said}")
    if isinstance(error, (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)):
        return Death("worker", _WORKERS, f"its Ray worker died, twice: {said}")
    return Death("node", _NODES, f"its node died, {_NODES} times: {said}")


def _write(folder: Path, files: _Files) -> None:
    """Put a report from a node into the run's folder, whole."""
    if is_done(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with report_folder(folder / REPORT) as target:
        for name, data in files.items():
            (target / name).write_bytes(data)


def _mark(folder: Path) -> bytes:
    """What a node must see in the run's folder to know that it is the driver's own."""
    return (folder.parent.parent / "journal.jsonl").read_bytes()[:200]


def _task(task: Task, mark: bytes, device: str, argv: list[str]) -> Iterator[TaskEvent | _Files]:
    """Runs on a node: does the task, and yields its events and its report's files."""
    sys.argv = argv
    try:
        shared = _mark(task.folder) == mark
    except OSError:
        shared = False
    if shared:
        yield from _attempted(task, task.folder, device)
        return
    own = Path(tempfile.mkdtemp(prefix="robaudit-"))
    try:
        for event in _attempted(task, own, device):
            if event.kind == "done":
                yield {path.name: path.read_bytes() for path in (own / REPORT).iterdir()}
            yield event
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _attempted(task: Task, folder: Path, device: str) -> Iterator[TaskEvent]:
    yield TaskEvent("started", task.key, f"Ray, {socket.gethostname()}")
    yield from attempted(task, folder, device)
