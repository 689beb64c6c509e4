"""A job that several workers share is the job that one does alone, and nothing is done twice."""

import sys
from collections import Counter

import numpy as np
import pytest
from support.batch_runs import numbers, numbers_of

from robaudit.audit import journal as journals
from robaudit.audit.plan import AutoAttack, Plan
from robaudit.batch import shards
from robaudit.batch import work as working
from robaudit.batch.directory import REPORT, STATE, create
from robaudit.batch.driving import drive
from robaudit.batch.inline import inline
from robaudit.batch.local import local
from robaudit.batch.lock import locked
from robaudit.batch.tasks import Helpers, Task
from robaudit.batch.work import help_with, load_model, load_parts, work
from robaudit.report import read_report


@pytest.fixture
def batches(monkeypatch):
    """AutoAttack's first two attacks, in batches of eight; gives how often each was computed."""
    plan = Plan(n=40, autoattack=AutoAttack(batch_size=8))
    for place in (shards, working):
        monkeypatch.setattr(place, "preset", lambda _: plan)
    reference = sys.modules["robaudit.attacks.autoattack"]  # the package gives the function
    prepared = reference._prepared

    def shortened(*said):
        attack, notes = prepared(*said)
        attack.attacks_to_run = ["apgd-ce", "apgd-t"]
        return attack, notes

    monkeypatch.setattr(reference, "_prepared", shortened)
    computed = Counter()
    write = journals.atomic_write

    def counted(path, data):
        computed[path.name] += 1
        write(path, data)

    monkeypatch.setattr(journals, "atomic_write", counted)
    return computed


def outcome_of(folder):
    with np.load(folder / REPORT / "examples.npz") as arrays:
        outcomes = {name: rows.tolist() for name, rows in arrays.items()}
    return numbers(read_report(folder / REPORT)), outcomes


@pytest.mark.slow
def test_what_helpers_have_done_is_not_done_again(job, batches, tmp_path):
    """One of them, which leaves after two batches of the first attack."""
    one = job("a.pt", n=24, eps=0.05)
    list(work(one, tmp_path / "alone", "cpu"))
    alone, pieces = outcome_of(tmp_path / "alone"), set(batches)
    batches.clear()

    folder = tmp_path / "shared"
    folder.mkdir()
    examples, _ = load_parts(one)
    model = load_model(one, examples, "cpu")
    journal = journals.open_journal(folder / STATE, working._journal_key(folder))
    left = iter(range(2))
    did = shards.share(
        model, examples, one, journal, folder / "claims", lambda: next(left, None) is not None
    )
    assert did == 2
    assert 2 + 1 == len(batches) < len(pieces)
    list(work(one, folder, "cpu", shared=True))
    assert outcome_of(folder) == alone
    assert batches.keys() == pieces
    assert set(batches.values()) == {1}


def test_a_claimed_batch_is_left_to_its_worker(job, batches, tmp_path):
    """Whoever finds a claim goes on with the next batch, and waits before the next attack."""
    one = job("a.pt", n=24, eps=0.05)
    examples, _ = load_parts(one)
    journal = journals.open_journal(tmp_path / STATE, {})
    claims = tmp_path / "claims"
    claims.mkdir()
    left = iter(range(9))
    with locked(claims / "apgd-ce-00001"):
        did = shards.share(
            load_model(one, examples, "cpu"), examples, one, journal, claims,
            lambda: next(left, None) is not None,
        )  # fmt: skip
    names = [name for name in batches if name.startswith("autoattack-")]
    assert did == len(names) > 1
    assert all("-apgd-ce-" in name and "-00001" not in name for name in names)


def test_a_network_that_draws_at_random_is_not_shared(job, batches, tmp_path):
    import torch

    one = job("a.pt", n=8)
    examples, _ = load_parts(one)
    network = load_model(one, examples, "cpu")
    network.register_forward_hook(lambda _, __, logits: logits + torch.rand_like(logits))
    journal = journals.open_journal(tmp_path / STATE, {})
    assert shards.share(network, examples, one, journal, tmp_path / "claims") == 0


def test_nobody_is_helped_who_is_gone(job, tmp_path, monkeypatch):
    monkeypatch.setattr(working, "_BEGUN", 0.0)
    monkeypatch.setattr(working, "load_model", None)
    help_with(job("a.pt"), tmp_path, "cpu")
    assert not list(tmp_path.iterdir())


def test_idle_workers_are_spread_over_the_jobs(tmp_path):
    first, second, whole = (
        Task(name, None, tmp_path, count) for name, count in (("a", 3), ("b", 3), ("c", 1))
    )
    helpers = Helpers()
    given = [helpers.next([first, second, whole]) for _ in range(5)]
    assert [task and task.key for task in given] == ["a", "b", "a", "b", None]
    assert all(task.helps for task in given[:-1])
    assert helpers.next(given[:2]) is None


@pytest.mark.slow
def test_local_workers_share_one_model(rows, tmp_path):
    listed = rows("a.pt", preset="standard", n=24, eps=0.05)
    alone, shared = create(tmp_path / "alone"), create(tmp_path / "shared")
    # Two threads each: a process alone would have taken one, as tests do.
    assert drive(alone, listed, inline("cpu"), workers=1, threads=2).complete
    executor = local(["cpu"] * 2)
    assert drive(shared, listed, executor, workers=2, threads=2, shards=2).complete
    assert numbers_of(shared, listed) == numbers_of(alone, listed)
    assert [path.name for path in shared.folder(listed[0]).iterdir()] == [REPORT]
