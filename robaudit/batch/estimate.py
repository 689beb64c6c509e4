"""What a whole run will cost, before it: one calibration for all networks of the same shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from robaudit.batch.cost import Cost, Speed, calibrate, cost
from robaudit.batch.jobs import Job
from robaudit.batch.listing import Row, shapes_of
from robaudit.batch.work import load_parts
from robaudit.errors import RobauditError
from robaudit.types import Examples


@dataclass(frozen=True)
class Estimate:
    """A row's cost, or why it has none.

    Attributes:
        cost: ``None`` for what is done, listed before, or cannot be audited.
    """

    row: Row
    cost: Cost | None
    reason: str = ""


def estimates(
    rows: Sequence[Row],
    done: frozenset[str],
    device: str,
    notice: Callable[[str], None] = lambda _: None,
) -> list[Estimate]:
    """Every row's cost.

    Args:
        done: keys of jobs that have their report.
        notice: told what is being measured.
    """
    parts: dict[tuple[object, ...], tuple[Examples, Examples | None]] = {}
    speeds: dict[tuple[object, ...], Speed] = {}
    seen: set[str] = set()
    found = []
    for row in rows:
        if row.reason:
            found.append(Estimate(row, None, row.reason))
        elif row.key in done or row.key in seen:
            found.append(Estimate(row, None, "done" if row.key in done else "listed above"))
        else:
            seen.add(row.key)
            job = row.job
            if job.examples not in parts:
                parts[job.examples] = load_parts(job)
            examples, train = parts[job.examples]
            speed = _speed(job, examples, device, speeds, notice)
            if isinstance(speed, str):
                found.append(Estimate(row, None, speed))
            else:
                n_train = 0 if train is None else len(train)
                found.append(Estimate(row, cost(job, len(examples), n_train, speed)))
    return found


def _speed(
    job: Job,
    examples: Examples,
    device: str,
    known: dict[tuple[object, ...], Speed],
    notice: Callable[[str], None],
) -> Speed | str:
    """That of a network of the same shapes where one was measured, or why there is none."""
    try:
        kind = (shapes_of(job), job.arch, job.suite)
        if kind not in known:
            notice(f"measuring {job.source}")
            known[kind] = calibrate(job, examples, device)
        return known[kind]
    except RobauditError as error:
        return error.message


def total(found: Sequence[Estimate], workers: int, start: float) -> Cost:
    """All of it on so many workers, each of which takes ``start`` seconds to begin."""
    costs = [one.cost for one in found if one.cost is not None]
    if not costs:
        return Cost(0, 0, 0.0)
    seconds = [one.seconds for one in costs]
    longest = max(sum(seconds) / max(1, workers), max(seconds))
    return Cost(
        sum(one.forwards for one in costs),
        sum(one.backwards for one in costs),
        start + longest,
    )
