"""How far a run is, how fast it goes, and how long it will still take. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from robaudit.batch.directory import ListedJob, State


@dataclass(frozen=True)
class RunProgress:
    """Jobs, each counted once however often it is listed.

    Attributes:
        per_hour: jobs that the run's workers finish in an hour, by what the finished ones took;
            ``None`` before one is finished.
        left: seconds, by the same; ``None`` where it cannot be said.
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
    """Where the run stands at ``now`` (seconds since the epoch)."""
    jobs: dict[str, ListedJob] = {row.key: row for row in state.rows}
    done = [key for key in jobs if key in state.done]
    running = [key for key in jobs if key in state.running and key not in state.done]
    failed = [key for key in jobs if key in state.failed and key not in state.done]
    took = {key: state.done[key] for key in done if state.done[key] > 0}
    if not took:
        return RunProgress(len(jobs), len(done), len(failed), len(running), None, None)
    usual = mean(took.values())
    by_suite: dict[tuple[object, ...], list[float]] = {}
    for key, seconds in took.items():
        by_suite.setdefault(jobs[key].job.suite, []).append(seconds)
    expected = {suite: mean(seconds) for suite, seconds in by_suite.items()}
    open_jobs = jobs.keys() - set(done) - set(failed)
    work = sum(expected.get(jobs[key].job.suite, usual) for key in open_jobs)
    begun = sum(
        min(now - state.running[key], expected.get(jobs[key].job.suite, usual)) for key in running
    )
    at_once = max(1, min(state.workers, len(open_jobs)))
    left = max(0.0, work - begun) / at_once
    per_hour = 3600 * state.workers / usual
    return RunProgress(len(jobs), len(done), len(failed), len(running), per_hour, left)


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(3), duration(90), duration(7300), duration(200000)
    ('3 s', '1 min 30 s', '2 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    for unit, size, smaller, part in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
