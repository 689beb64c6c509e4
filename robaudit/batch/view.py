"""A run as tables: its jobs and how far they are, and what a dry run counts."""

from __future__ import annotations

from collections.abc import Container, Sequence

from robaudit.batch.directory import ListedJob, State
from robaudit.batch.lock import Holder
from robaudit.batch.progress import RunProgress, progress
from robaudit.batch.tasks import TaskEvent
from robaudit.display import duration
from robaudit.measures import find
from robaudit.report.numbers import percent
from robaudit.report.table import Cell, Column, Table, Tone, names, text
from robaudit.report.text import model_names, plain
from robaudit.report.words import attack, label
from robaudit.schema import Measurement, Report

_MOST_ROWS = 30


def run_table(state: State, driver: Holder | None, now: float) -> Table:
    """The jobs: running and failed ones before finished and waiting ones.

    Rows beyond the first 30 are counted in a note.
    """
    rows = sorted(state.rows, key=lambda row: _ORDER.index(_status(row, state)))
    models = names_by_source(state.rows)
    first = _first_of_key(state.rows)
    columns = [names("Model"), text("Data and threat"), text("State"), Column("Time"), text()]
    cells = []
    for row in rows[:_MOST_ROWS]:
        status = _status(row, state)
        said = status if driver or status != "running" else "interrupted"
        cells.append(
            [
                Cell(models[row.job.source]),
                Cell(_suite(row)),
                Cell(said, tone=_TONES[status]),
                Cell(_time(row, state, now)),
                Cell(_remark(row, state, first[row.key])),
            ]
        )
    more = len(rows) - _MOST_ROWS
    notes = [f"... and {more} more rows"] if more > 0 else []
    return Table(columns, cells, _headline(progress(state, now), driver), notes=notes)


def dry_run_table(rows: Sequence[ListedJob], done: Container[str]) -> Table:
    """Every row with the passes that its job takes, and their sum over the jobs that are left.

    Args:
        done: keys of jobs that have their report.
    """
    models = names_by_source(rows)
    first = _first_of_key(rows)
    columns = [names("Model"), text("Data and threat"), text("Preset"), Column("Passes"), text()]
    cells = []
    passes: list[int] = []
    for row in rows:
        reason = row.reason
        if not reason and row.key in done:
            reason = "done"
        elif not reason and row is not first[row.key]:
            reason = "listed above"
        passes += [] if reason else [row.passes]
        count = "" if reason else f"{row.passes:,}"
        said = (models[row.job.source], _suite(row), row.job.measured, count, reason)
        cells.append([Cell(one) for one in said])
    summary = (
        f"{len(passes)} jobs: at most {sum(passes):,} passes of one example, a backward pass "
        "counted as two. Once a job is finished, robaudit batch status estimates the time left."
    )
    return Table(columns, cells, notes=[summary])


def log_line(event: TaskEvent, state: State, now: float) -> str:
    """One line for a log about a job that is done or has failed."""
    found = progress(state, now)
    row = _first_of_key(state.rows)[event.key]
    name = names_by_source(state.rows)[row.job.source]
    place = f"[{found.done + found.failed}/{found.total}] {name}, {_suite(row)}"
    report = state.report(row.key)
    if event.kind == "failed" or report is None:
        return f"{place}: failed: {plain(event.text)}"
    left = f"; about {duration(found.left)} left" if found.left else ""
    return f"{place}: {_accuracies(report)}, {duration(event.seconds)}{left}"


_ORDER = ("running", "failed", "done", "waiting")
_TONES: dict[str, Tone] = {
    "running": "strong",
    "failed": "bad",
    "done": "good",
    "waiting": "soft",
}


def _headline(found: RunProgress, driver: Holder | None) -> str:
    counts = (
        (found.failed, "failed"),
        (found.running, "running" if driver else "interrupted"),
        (found.waiting, "waiting"),
    )
    parts = [f"{found.done} of {found.total} jobs done"]
    parts += [f"{count} {word}" for count, word in counts if count]
    open_jobs = found.running + found.waiting
    if found.per_hour is not None and open_jobs:
        parts.append(f"{found.per_hour:.3g} an hour")
        if found.left is not None:
            parts.append(f"about {duration(found.left)} left")
    if driver is None and open_jobs:
        parts.append("no process is working on it: the same command resumes it")
    return ", ".join(parts)


def names_by_source(rows: Sequence[ListedJob]) -> dict[str, str]:
    """The models' short names by source, no two alike."""
    sources = list(dict.fromkeys(row.job.source for row in rows))
    return dict(zip(sources, model_names(sources), strict=True))


def _suite(row: ListedJob) -> str:
    data = row.job.data.rpartition("/")[2]
    return f"{data} {row.job.threat}"


def _first_of_key(rows: Sequence[ListedJob]) -> dict[str, ListedJob]:
    return {row.key: row for row in reversed(rows)}


def _accuracies(report: Report) -> str:
    found = [
        f"{'clean' if m.name == 'accuracy.clean' else _short(m)} {percent(m.value)}"
        for m in report.measurements
        if m.name.startswith("accuracy.") and m.split == report.data.split and m.value is not None
    ]
    failed = dict.fromkeys(m.name for m in report.failed)
    return ", ".join(found) + (f"; not measured: {', '.join(failed)}" if failed else "")


def _short(m: Measurement) -> str:
    row = find(m.name)
    return attack(m) if row.attack else row.study or label(m).lower()


def _status(row: ListedJob, state: State) -> str:
    if row.key in state.done:
        return "done"
    if row.key in state.failed:
        return "failed"
    return "running" if row.key in state.running else "waiting"


def _remark(row: ListedJob, state: State, first: ListedJob) -> str:
    if row.job.source != first.job.source:
        return f"the same file as {first.job.source}"
    status = _status(row, state)
    if status == "failed":
        return state.failed[row.key]
    report = state.report(row.key)
    if report is not None:
        return _accuracies(report)
    done = [stage for stage in row.stages if stage in state.stages.get(row.key, ())]
    at = f"{len(done)} of {len(row.stages)} stages" if row.stages else ""
    if status == "running":
        now_at = next((stage for stage in row.stages if stage not in done), "")
        return f"{at}, {now_at}"
    return at if done else ""


def _time(row: ListedJob, state: State, now: float) -> str:
    if row.key in state.running:
        return duration(now - state.running[row.key])
    seconds = state.done.get(row.key, 0.0)
    return duration(seconds) if seconds else ""
