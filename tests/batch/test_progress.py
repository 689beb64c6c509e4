"""Status: what is done, what runs, what is left."""

import io
import shutil
import time

import pytest
from rich.console import Console
from support.batch_runs import finished, log_done, log_listed

from robaudit.batch import log
from robaudit.batch.directory import create
from robaudit.batch.lock import Holder
from robaudit.batch.progress import progress
from robaudit.batch.view import run_table
from robaudit.report.formats.terminal import terminal_view

DRIVER = Holder(1, "here", "t", 0.0)


def text(state, driver=DRIVER, now=None):
    console = Console(file=io.StringIO(), width=200)
    console.print(terminal_view(run_table(state, driver, time.time() if now is None else now)))
    return console.file.getvalue()


@pytest.fixture
def half(tmp_path):
    """Four jobs of a minute each are done of ten; one failed, one runs, four wait."""
    directory = finished(tmp_path / "run", 4)
    for name in ("bad", "on", "w1", "w2", "w3", "w4"):
        log_listed(directory, f"{name}.pt", name)
    log.append(directory.journal, "failed", key="bad", reason="no \x1b[31mluck", seconds=1.0)
    log.append(directory.journal, "started", key="on", where="worker 1")
    log.append(directory.journal, "stage", key="on", stage="attacks", seconds=5.0)
    return directory


def test_time_left_follows_from_what_jobs_took(half):
    state = half.state()
    found = progress(state, state.running["on"] + 15)
    assert (found.total, found.done, found.failed, found.running, found.waiting) == (10, 4, 1, 1, 4)
    assert found.per_hour == pytest.approx(120)  # two workers, a minute each
    assert found.left == pytest.approx((5 * 60 - 15) / 2)


def test_jobs_of_another_suite_are_expected_by_their_own(half):
    log_listed(half, "big.pt", "big", n=7)
    log_listed(half, "big2.pt", "big2", n=7)
    log_done(half, "big", half.state().report(f"{0:012d}"), seconds=600.0)
    state = half.state()
    left = progress(state, state.running["on"]).left
    assert left == pytest.approx((5 * 60 + 600) / 2)


def test_what_runs_and_what_failed_stand_first(half):
    lines = text(half.state()).splitlines()
    assert lines[0].startswith("4 of 10 jobs done, 1 failed, 1 running, 4 waiting, 120 an hour")
    body = [line.split()[0] for line in lines[3:]]
    assert body[:2] == ["on", "bad"]
    assert "1 of 4 stages, wci" in lines[3]
    assert "no luck" in lines[4]
    assert "\x1b" not in "".join(lines)


def test_without_a_driver_what_ran_is_interrupted(half):
    shown = text(half.state(), None)
    assert "1 interrupted" in shown
    assert "the same command resumes it" in shown


def test_a_driver_that_begins_finds_nothing_running(half):
    log.append(half.journal, "driver", pid=2, workers=3)
    state = half.state()
    assert (state.running, state.workers) == ({}, 3)


def test_a_long_run_is_cut_and_counted(tmp_path):
    shown = text(finished(tmp_path / "run", 50).state())
    assert "... and 20 more rows" in shown


def test_the_same_weights_twice_are_one_job(tmp_path):
    directory = finished(tmp_path / "run", 1)
    log_listed(directory, "elsewhere/copy.pt", f"{0:012d}")
    state = directory.state()
    assert progress(state, 0).total == 1
    assert "the same file as runs/model_0000.pt" in text(state)


def test_an_empty_run(tmp_path):
    directory = create(tmp_path / "run")
    assert "0 of 0 jobs done" in text(directory.state())


def test_a_job_whose_report_was_removed_is_not_done(tmp_path):
    directory = finished(tmp_path / "run", 2)
    shutil.rmtree(next(iter(directory.state().folders.values())))
    assert "1 of 2 jobs done, 1 waiting" in text(directory.state())
