"""Worker processes: the numbers of one process, and no model that ends the others' run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.batch_runs import numbers_of

from robaudit.batch import local as local_workers
from robaudit.batch.directory import STATE, create, find
from robaudit.batch.driving import drive
from robaudit.batch.local import in_process, local, places, threads_each
from robaudit.batch.on_ray import gpus_each
from robaudit.batch.tasks import Deaths, Task
from robaudit.errors import UsageError

ROOT = Path(__file__).parents[2]


def one_by_one(folder, rows):
    directory = create(folder)
    assert drive(directory, rows, in_process("cpu"), workers=1).complete
    return numbers_of(directory, rows)


@pytest.mark.slow
def test_workers_give_the_same_numbers_and_survive_every_model(rows, tmp_path, models):
    """Two good ones among one that kills its worker and one that never ends."""
    good = rows("a.pt", "b.pt")
    (deadly,) = rows("c.pt", arch=f"{models / 'nets.py'}:deadly")
    (hanging,) = rows("c.pt", arch=f"{models / 'nets.py'}:hanging")
    clock = time.monotonic()
    alone = one_by_one(tmp_path / "alone", good)
    timeout = 5 + 5 * (time.monotonic() - clock)  # also on a machine that is busy with other work
    directory = create(tmp_path / "run")
    executor = local(["cpu"] * 2, timeout)
    outcome = drive(directory, [hanging, deadly, *good], executor, workers=2)
    assert outcome.state.failed.keys() == {deadly.key, hanging.key}
    assert f"longer than {timeout:g} seconds" in outcome.state.failed[hanging.key]
    assert "killed (signal 9)" in outcome.state.failed[deadly.key]
    assert "memory" in outcome.state.failed[deadly.key]
    assert numbers_of(directory, good) == alone


def test_deaths_count_from_the_last_piece_that_was_kept(tmp_path):
    task, other = (Task(key, None, tmp_path / key) for key in "ab")
    deaths = Deaths()
    (task.folder / STATE).mkdir(parents=True)
    assert [deaths.count(task), deaths.count(other), deaths.count(task)] == [1, 1, 2]
    (task.folder / STATE / "apgd-ce-00000.safetensors").touch()
    (task.folder / STATE / ".draft-apgd-ce-00001").touch()
    assert [deaths.count(task), deaths.count(task, "node"), deaths.count(task)] == [1, 1, 2]
    assert deaths.count(other) == 2


def gpus(monkeypatch, count):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)


def test_one_model_a_gpu_and_several_gpus_a_model_where_there_are_fewer(monkeypatch):
    gpus(monkeypatch, 4)
    one_each = [f"cuda:{at}" for at in range(4)]
    for every in ("auto", "cuda", "cuda:all"):
        assert places(None, every) == one_each
        assert places(6, every) == [*one_each, "cuda:0", "cuda:1"]
        assert places(2, every) == ["cuda:0,cuda:2", "cuda:1,cuda:3"]
        assert places(1, every) == ["cuda:0,cuda:1,cuda:2,cuda:3"]
    assert places(None, "cuda:1,cuda:3") == ["cuda:1", "cuda:3"]
    assert places(1, "cuda:1,cuda:3") == ["cuda:1,cuda:3"]
    assert places(2, "cuda:1") == ["cuda:1", "cuda:1"]
    assert places(2, "cpu,cpu") == ["cpu,cpu"] * 2
    with pytest.raises(UsageError, match="only 4 CUDA devices"):
        places(None, "cuda:1,cuda:4")


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 9])
def test_workers_begin_for_as_many_models_as_are_left(monkeypatch, tasks):
    gpus(monkeypatch, 4)
    begun = []
    monkeypatch.setattr(local_workers, "_Processes", begun.append)
    monkeypatch.setattr(local_workers, "executor", lambda start, timeout: start(tasks))
    for where, at_most in ((places(None, "auto"), 4), (places(6, "auto"), 6), (["cpu"] * 3, 3)):
        local(where)
        used = begun.pop()
        assert len(used) == min(tasks, at_most)
        named = {gpu for one in used for gpu in one.split(",")}
        assert named == {gpu for one in where for gpu in one.split(",")}  # no GPU is idle
        assert all(gpu.count("cuda:0") <= 1 for gpu in used)


@pytest.mark.parametrize(
    ("nodes", "tasks", "each"),
    [
        ((4, 4), 8, 1),
        ((4, 4), 9, 1),
        ((4, 4), 3, 2),
        ((3, 3), 3, 1),
        ((4, 0, 8), 1, 8),
        ((0,), 1, 1),
    ],
)
def test_a_task_on_ray_has_gpus_of_one_node(nodes, tasks, each):
    """As many as all tasks can have at the same time."""
    assert gpus_each(nodes, tasks) == each


def test_cores_are_shared(monkeypatch):
    assert (places(None, "cpu"), places(3, "cpu")) == (["cpu"], ["cpu"] * 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    for of_torch, workers, each in ((8, 1, 8), (8, 3, 2), (4, 1, 4), (4, 2, 2), (1, 2, 1)):
        monkeypatch.setattr("torch.get_num_threads", lambda of_torch=of_torch: of_torch)
        assert threads_each(workers) == each


@pytest.mark.slow
def test_kills_at_random_moments_leave_no_trace(rows, tmp_path, models):
    """Worker and driver are killed again and again; the run ends as an undisturbed one does."""
    listed = rows("a.pt", "b.pt", "c.pt")
    folder = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "robaudit", "batch", *(row.job.source for row in listed)),
        *("--out", folder, "--workers", "2", "--preset", "quick", "--n", "12", "--eps", "0.1"),
        *("--no-gap", "--normalize", "none", "--arch", f"{models / 'nets.py'}:linear"),
        *("--device", "cpu", "--quiet", "--retry", "failed"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    chance = random.Random(7)

    def children(pid):
        listing = Path(f"/proc/{pid}/task/{pid}/children")
        return [int(child) for child in listing.read_text().split()] if listing.exists() else []

    for victim in ("driver", "worker", "driver"):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        wait_for_workers(process, folder)
        time.sleep(chance.uniform(0, 0.4))
        if victim == "driver":
            process.kill()
            process.wait()
        else:
            for child in children(process.pid)[-1:]:
                os.kill(child, signal.SIGKILL)
            process.wait()
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, timeout=120)
    assert done.returncode == 0
    assert numbers_of(find(folder), listed) == one_by_one(tmp_path / "alone", listed)


def wait_for_workers(process, folder):
    """Until the driver has begun with a job, or has nothing left to do."""
    journal = folder / "journal.jsonl"
    before = journal.read_bytes().count(b'"started"') if journal.exists() else 0
    while process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b'"started"') > before:
            return
        time.sleep(0.02)
