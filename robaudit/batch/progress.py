"""How many jobs of a run are done, its rate, and the time left. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from robaudit.batch.directory import State


@dataclass(frozen=True)
class RunProgress:
    """Numbers of jobs; a job that is listed several times counts once.

    Attributes:
        per_hour: jobs that all workers finish in an hour, by the time that finished jobs took;
            ``None`` before one is finished.
        left: seconds until all are finished, likewise.
    """

    total: int
    done: int
    failed: int
    running: int
    per_hour: float | None
    left: float | None

    @property
    def waiting(self) -> int:
        return self.total - self.done - self.failed - self.running


def progress(state: State, now: float) -> RunProgress:
    """The progress of a run at ``now``, in seconds since the epoch.

    A job is expected to take as long as the finished jobs of its data and threat model, else as
    all finished jobs, took on average.
    """
    jobs = {row.key: row.job for row in state.rows}
    done = {key: state.done[key] for key in jobs if key in state.done}
    running = [key for key in jobs if key in state.running and key not in done]
    failed = [key for key in jobs if key in state.failed and key not in done]
    counts = len(jobs), len(done), len(failed), len(running)
    took = {key: seconds for key, seconds in done.items() if seconds > 0}
    if not took:
        return RunProgress(*counts, None, None)
    by_suite: dict[tuple[object, ...], list[float]] = {}
    for key, seconds in took.items():
        by_suite.setdefault(jobs[key].suite, []).append(seconds)
    usual = mean(took.values())
    open_jobs = jobs.keys() - done.keys() - set(failed)
    expected = {key: mean(by_suite.get(jobs[key].suite, [usual])) for key in open_jobs}
    spent = sum(min(now - state.running[key], expected[key]) for key in running)
    at_once = max(1, min(state.workers, len(open_jobs)))
    left = max(0.0, sum(expected.values()) - spent) / at_once
    return RunProgress(*counts, 3600 * state.workers / usual, left)
