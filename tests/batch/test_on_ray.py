"""The Ray engine gives the numbers of one process, whatever dies; skipped where Ray is missing."""

import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

ray = pytest.importorskip("ray")

from support.batch_runs import numbers_of  # noqa: E402

from robaudit.batch import log  # noqa: E402
from robaudit.batch import on_ray as engine  # noqa: E402
from robaudit.batch.directory import REPORT, create  # noqa: E402
from robaudit.batch.driving import drive  # noqa: E402
from robaudit.batch.local import in_process  # noqa: E402
from robaudit.batch.tasks import Task, executor  # noqa: E402


@pytest.fixture(autouse=True)
def ended():
    yield
    ray.shutdown()


class Nodes:
    """A cluster of a head, which only the driver uses, and nodes of one core that can be killed."""

    def __init__(self, count):
        from ray.cluster_utils import Cluster

        self.said = {"object_store_memory": 80_000_000}
        head = {**self.said, "num_cpus": 0, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.add_node(num_cpus=1, **self.said) for _ in range(count)]

    def kill(self, at):
        """Kill -9 of all of a node's processes, and another node in its place."""
        (raylet,) = self.nodes[at].all_processes["raylet"]
        for process in descendants(raylet.process.pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.nodes[at] = self.cluster.add_node(num_cpus=1, **self.said)


def descendants(process):
    found = [process]
    with suppress(FileNotFoundError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            found += descendants(int(child))
    return found


@pytest.fixture
def nodes():
    made = Nodes(2)
    yield made
    ray.shutdown()
    made.cluster.shutdown()


@pytest.mark.slow
def test_the_same_numbers_and_deaths_are_rows(rows, models, tmp_path):
    good = rows("a.pt", "b.pt")
    (deadly,) = rows("c.pt", arch=f"{models / 'nets.py'}:deadly")
    alone = create(tmp_path / "alone")
    assert drive(alone, good, in_process("cpu"), workers=1).complete
    executor, at_once, _ = engine.on_ray(None, 2, "cpu", None)
    assert at_once == 2
    directory = create(tmp_path / "run")
    outcome = drive(directory, [deadly, *good], executor, workers=2)
    assert numbers_of(directory, good) == numbers_of(alone, good)
    assert "its Ray worker died" in outcome.state.failed[deadly.key]


@pytest.mark.slow
def test_nodes_that_are_killed_leave_no_trace(rows, nodes, tmp_path):
    """Three times, at random moments, on a cluster that is there already."""
    listed = [row for eps in (0.05, 0.1) for row in rows("a.pt", "b.pt", "c.pt", eps=eps)]
    alone = create(tmp_path / "alone")
    assert drive(alone, listed, in_process("cpu"), workers=1).complete
    directory = create(tmp_path / "run")
    executor, at_once, _ = engine.on_ray(nodes.cluster.address, None, "cpu", None)
    assert at_once == 2
    chance = random.Random(3)
    begun = 0

    def look(event):
        nonlocal begun
        if event is not None and event.kind == "started":
            begun += 1
            if begun in (2, 4, 6):
                time.sleep(chance.uniform(0, 0.3))
                nodes.kill(begun // 2 % 2)

    outcome = drive(directory, listed, executor, workers=2, look=look)
    assert outcome.complete
    assert numbers_of(directory, listed) == numbers_of(alone, listed)
    events = log.events(directory.journal)
    ends = [e for e in events if e["event"] in ("stage", "done")]
    finished = Counter((e["key"], e.get("stage")) for e in ends)
    assert set(finished.values()) == {1}
    assert sum(e["event"] == "started" for e in events) > len(listed)


@pytest.mark.parametrize(("error", "last"), [("WorkerCrashedError", 2), ("NodeDiedError", 5)])
def test_a_task_fails_in_the_end(rows, tmp_path, error, last):
    """After fewer deaths of its worker than of its node."""
    (row,) = rows("a.pt")
    died = getattr(ray.exceptions, error)
    died = died() if last == 2 else died("gone")
    death = engine._end_of(ray, row.key, died)
    assert error in death.reason

    begun = []

    class Dying:
        size = 1

        def begin(self, task):
            begun.append(task.key)

        def listen(self, seconds):
            return [(row.key, death)]

        def close(self):
            pass

    events = list(executor(lambda _: Dying())([Task(row.key, row.job, tmp_path)]))
    assert begun == [row.key] * last
    assert [(event.kind, event.text) for event in events] == [("failed", death.reason)]


def test_a_node_without_the_runs_folder_sends_the_report_back(rows, tmp_path):
    """As on a cluster whose nodes share no folder; called here as Ray calls it there."""
    (row,) = rows("a.pt")
    task = Task(row.key, row.job, tmp_path / "jobs" / "a")
    *stages, files, done = engine._task(task, b"", "cpu", sys.argv)
    assert [said.kind for said in stages] == ["started"] + ["stage"] * len(row.stages)
    assert done.kind == "done"
    assert {"report.json", "examples.npz"} <= files.keys()
    assert not list(tmp_path.iterdir())
    engine._write(task.folder, files)
    assert {path.name for path in (task.folder / REPORT).iterdir()} == files.keys()
