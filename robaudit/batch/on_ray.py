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
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robaudit.batch.directory import REPORT, is_done
from robaudit.batch.tasks import Deaths, Executor, Happening, Happenings, Task
from robaudit.batch.work import attempted
from robaudit.errors import UsageError
from robaudit.report import report_folder

_TICK = 0.5  # seconds between two looks
# Deaths after which a task is given up. Nodes mostly die of their own, but a task
# that ends one after another must not have them all.
_WORKERS, _NODES = 2, 5

# The report's files by name, from a node that does not see the run's folder.
_Files = dict[str, bytes]


@dataclass
class _Sent:
    """A task that Ray has.

    Attributes:
        since: when it began, which may be long after it was sent.
    """

    task: Task
    since: float | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self.since is None else time.monotonic() - self.since


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

    def run(tasks: Sequence[Task]) -> Happenings:
        waiting = deque(tasks)
        running: dict[Any, _Sent] = {}
        deaths = Deaths()
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    task = waiting.popleft()
                    mark = _mark(task.folder)
                    running[remote.remote(task, mark, where, sys.argv)] = _Sent(task)
                ready, _ = ray.wait(list(running), timeout=_TICK)
                if not ready:
                    yield None
                for stream in ready:
                    sent = running[stream]
                    try:
                        said = ray.get(next(stream))
                    except (StopIteration, ray.exceptions.RayError) as error:
                        del running[stream]
                        happened = _after_death(ray, sent, error, deaths)
                        if happened is None:
                            waiting.appendleft(sent.task)
                        else:
                            yield happened
                        continue
                    if not isinstance(said, Happening):
                        _write(sent.task.folder, said)
                        continue
                    if said.kind == "started":
                        sent.since = time.monotonic()
                    elif said.kind in ("done", "failed"):
                        del running[stream]
                    yield said
                for stream, sent in list(running.items()):
                    if timeout is not None and sent.seconds > timeout:
                        ray.cancel(stream, force=True)
                        del running[stream]
                        reason = f"it took longer than {timeout:g} seconds"
                        yield Happening("failed", sent.task.key, reason, sent.seconds)
        finally:
            for stream in running:
                ray.cancel(stream, force=True)

    return run, at_once, threads


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "Ray is not installed", "Install it: pip install 'robaudit[ray]'"
        ) from error
    return ray


def _after_death(ray: Any, sent: _Sent, error: Exception, deaths: Deaths) -> Happening | None:
    """What became of a task that says no more; ``None`` where it is to be begun again."""
    key = sent.task.key
    if is_done(sent.task.folder):  # it had only not said so yet
        return Happening("done", key, "", sent.seconds)
    line = next((line for line in str(error).splitlines() if line.strip()), "")
    said = f"{type(error).__name__}: {line[:200]}"
    if isinstance(error, ray.exceptions.RayTaskError):  # nothing died: it cannot run there
        return Happening("failed", key, f"Ray cannot run it: {said}", sent.seconds)
    own = isinstance(error, (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError))
    limit = _WORKERS if own else _NODES
    if deaths.count(sent.task, "worker" if own else "node") < limit:
        return None
    times = "twice" if own else f"{limit} times"
    what = "its Ray worker died" if own else "its node died"
    return Happening("failed", key, f"{what}, {times}: {said}", sent.seconds)


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


def _task(task: Task, mark: bytes, device: str, argv: list[str]) -> Iterator[Happening | _Files]:
    """Runs on a node, and says what happens as it happens."""
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
        for happened in _attempted(task, own, device):
            if happened.kind == "done":
                yield {path.name: path.read_bytes() for path in (own / REPORT).iterdir()}
            yield happened
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _attempted(task: Task, folder: Path, device: str) -> Iterator[Happening]:
    yield Happening("started", task.key, f"Ray, {socket.gethostname()}")
    yield from attempted(task, folder, device)
