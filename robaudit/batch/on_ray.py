"""The executor that runs tasks on Ray, on this machine or on a cluster.

A task is sent paths, not data or weights: these must be at the same paths on every node. Where the
nodes share the run's folder, a task works in it and resumes what a killed one left. Elsewhere it
works in a temporary folder of its node, and the finished report is sent back.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from robaudit.batch.directory import REPORT, is_done
from robaudit.batch.tasks import Death, Executor, Task, TaskEvent, executor
from robaudit.batch.work import attempted
from robaudit.engine.device import EVERY_GPU
from robaudit.errors import UsageError, error_line, first_line
from robaudit.report import report_folder

# Deaths without progress after which a task has failed. A node seldom dies because of its task, but
# a task must not kill all nodes one by one.
_WORKERS, _NODES = 2, 5

# A report's files by name, from a node that does not share the run's folder.
_Files = dict[str, bytes]


def on_ray(
    address: str | None, workers: int | None, device: str, timeout: float | None
) -> tuple[Executor, int, int]:
    """An executor on a cluster, how many tasks it does at the same time, and the cores of each.

    Args:
        address: of a running cluster, or ``auto``; ``None`` starts Ray on this machine.
        workers: the most tasks at the same time; by default one for each GPU, or for each core.
        device: with ``cpu`` no task gets a GPU; else each gets one where the cluster has GPUs, and
            where there are fewer tasks than GPUs as many as every task can have.
        timeout: seconds after which a task is killed and has failed.

    Raises:
        UsageError: Ray is not installed, or no cluster is there.
    """
    if workers == 0:
        raise UsageError("--workers 0 works in this process, without Ray")
    try:
        ray: Any = import_module("ray")
    except ImportError as error:
        raise UsageError(
            "Ray is not installed", "Install it: pip install 'robaudit[ray]'"
        ) from error
    if not ray.is_initialized():
        try:
            ray.init(
                address=address or "local",  # never a cluster that another program has left
                num_cpus=workers if address is None else None,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
            )
        except Exception as error:
            raise UsageError(
                f"Ray does not start: {first_line(error)}", "Check --address."
            ) from error
    there = ray.cluster_resources()
    gpus = 0 if device == "cpu" else int(there.get("GPU", 0))
    at_once = min(workers or sys.maxsize, gpus or int(there.get("CPU", 1)))
    threads = max(1, int(there.get("CPU", 1)) // max(1, at_once)) if gpus else 1
    nodes = [int(one["Resources"].get("GPU", 0)) for one in ray.nodes() if one["Alive"]]

    def start(tasks: int) -> _Cluster:
        # Ray's retries would not tell a node's death from a worker's, nor report a new start.
        options: dict[str, Any] = {"max_retries": 0, "num_cpus": 1, "num_returns": "streaming"}
        if gpus:
            options["num_gpus"] = gpus_each(nodes, min(at_once, tasks))
        # Ray shows a task the GPUs it may use, and no others.
        where = EVERY_GPU if gpus else "cpu"
        return _Cluster(ray, ray.remote(_task).options(**options), where, at_once)

    return executor(start, timeout), at_once, threads


def gpus_each(nodes: Sequence[int], tasks: int) -> int:
    """The most GPUs that each of so many tasks can have at the same time; at least one.

    Args:
        nodes: the GPUs of each node; a task has those of one node.
    """
    sizes = range(1, max(nodes, default=1) + 1)
    return max([1, *(size for size in sizes if sum(have // size for have in nodes) >= tasks)])


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


def _end_of(ray: Any, key: str, error: Exception) -> TaskEvent | Death:
    """Why a task's stream of events ended."""
    said = error_line(error)
    if isinstance(error, ray.exceptions.RayTaskError):  # nothing died: it cannot run there
        return TaskEvent("failed", key, f"Ray cannot run it: {said}")
    if isinstance(error, (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)):
        return Death("worker", _WORKERS, f"its Ray worker died, twice: {said}")
    return Death("node", _NODES, f"its node died, {_NODES} times: {said}")


def _write(folder: Path, files: _Files) -> None:
    """Write a report that a node sent."""
    if is_done(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with report_folder(folder / REPORT) as target:
        for name, data in files.items():
            (target / name).write_bytes(data)


def _mark(folder: Path) -> bytes:
    """The beginning of the journal, by which a node knows that it shares the run's folder."""
    return (folder.parent.parent / "journal.jsonl").read_bytes()[:200]


def _task(task: Task, mark: bytes, device: str, argv: list[str]) -> Iterator[TaskEvent | _Files]:
    """Runs on a node: does the task, and yields its events and its report's files."""
    sys.argv = argv
    yield TaskEvent("started", task.key, f"Ray, {socket.gethostname()}")
    try:
        shared = _mark(task.folder) == mark
    except OSError:
        shared = False
    if shared:
        yield from attempted(task, task.folder, device)
        return
    own = Path(tempfile.mkdtemp(prefix="robaudit-"))
    try:
        for event in attempted(task, own, device):
            if event.kind == "done":
                yield {path.name: path.read_bytes() for path in (own / REPORT).iterdir()}
            yield event
    finally:
        shutil.rmtree(own, ignore_errors=True)
