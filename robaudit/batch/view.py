"""A run on a terminal: the table of its jobs, and a line for each thing that happens."""

from __future__ import annotations

from collections.abc import Container, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from robaudit.batch.directory import ListedJob, State
from robaudit.batch.lock import Holder
from robaudit.batch.progress import Progress, duration, progress
from robaudit.batch.results import Result
from robaudit.batch.tasks import Happening
from robaudit.report.numbers import percent
from robaudit.report.text import model_names, plain
from robaudit.types import radius

_MOST_ROWS = 30


def names_of(rows: Sequence[ListedJob]) -> dict[str, str]:
    """The models' short names by source, no two alike."""
    sources = list(dict.fromkeys(row.job.source for row in rows))
    return dict(zip(sources, model_names(sources), strict=True))


def suite_words(row: ListedJob) -> str:
    """The data and the threat model of a row."""
    return f"{_data(row.job.data)} {row.job.norm} {radius(row.job.eps)}"


def headline(found: Progress, driver: Holder | None) -> str:
    """How far the run is, in one line."""
    parts = [f"{found.done} of {found.total} jobs done"]
    parts += [
        f"{count} {word}"
        for count, word in (
            (found.failed, "failed"),
            (found.running, "running" if driver else "interrupted"),
            (found.waiting, "waiting"),
        )
        if count
    ]
    open_jobs = found.running + found.waiting
    if found.per_hour is not None and open_jobs:
        parts.append(f"{found.per_hour:.3g} an hour")
        if found.left is not None:
            parts.append(f"about {duration(found.left)} left")
    if driver is None and open_jobs:
        parts.append("nobody is driving it: the same command goes on")
    return ", ".join(parts)


def run_view(state: State, driver: Holder | None, now: float) -> RenderableType:
    """The headline, and a table with what runs and what failed before what is done or waits.

    What is left out of a long table is counted below it.
    """
    rows = sorted(state.rows, key=lambda row: _ORDER.index(_status(row, state)))
    names = names_of(state.rows)
    first = _first_of_key(state.rows)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("Model", overflow="fold", min_width=12)
    table.add_column("Data and threat", overflow="fold")
    table.add_column("State", no_wrap=True)
    table.add_column("Time", no_wrap=True, justify="right")
    table.add_column("", overflow="fold", ratio=1)
    for row in rows[:_MOST_ROWS]:
        status = _status(row, state)
        shown = status if driver or status != "running" else "interrupted"
        what = _what(row, state, now, first[row.key])
        table.add_row(
            Text(names[row.job.source]), Text(suite_words(row)),
            Text(shown, style=_STYLES[status]), Text(_time(row, state, now)), Text(what),
        )  # fmt: skip
    parts: list[RenderableType] = [Text(headline(progress(state, now), driver)), Text(), table]
    if len(rows) > _MOST_ROWS:
        parts.append(Text(f"... and {len(rows) - _MOST_ROWS} more rows", style="dim"))
    return Group(*parts)


def line(happened: Happening, state: State, now: float) -> str:
    """What a log says of a job that is done or has failed."""
    found = progress(state, now)
    row = _first_of_key(state.rows)[happened.key]
    name = names_of(state.rows)[row.job.source]
    place = f"[{found.done + found.failed}/{found.total}] {name}, {suite_words(row)}"
    if happened.kind == "failed":
        return f"{place}: failed: {plain(happened.text)}"
    left = f"; about {duration(found.left)} left" if found.left else ""
    return (
        f"{place}: {headline_numbers(state.results[row.key])}, {duration(happened.seconds)}{left}"
    )


def headline_numbers(result: Result) -> str:
    """The accuracies of a result in few words."""
    found = [
        f"{number.label if number.name != 'accuracy.clean' else 'clean'} {percent(number.value)}"
        for number in result.table.values()
        if number.name.startswith("accuracy.")
        and number.split == result.split
        and number.value is not None
    ]
    failed = [number.name for number in result.failed]
    lost = f"; not measured: {', '.join(dict.fromkeys(failed))}" if failed else ""
    return ", ".join(found) + lost


def dry_run_view(rows: Sequence[ListedJob], done: Container[str]) -> RenderableType:
    """Every row with the passes that its job takes, and their sum over the jobs that are left.

    Args:
        done: keys of jobs that have their report.
    """
    names = names_of(rows)
    first = _first_of_key(rows)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    table.add_column("Model", overflow="fold", min_width=12)
    table.add_column("Data and threat", overflow="fold")
    table.add_column("Preset")
    table.add_column("Passes", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    counts = []
    for row in rows:
        reason = plain(row.reason)
        if not reason and row.key in done:
            reason = "done"
        elif not reason and row is not first[row.key]:
            reason = "listed above"
        counts += [] if reason else [row.passes]
        texts = (names[row.job.source], suite_words(row), row.job.preset)
        count = "" if reason else f"{row.passes:,}"
        table.add_row(*(Text(text) for text in (*texts, count, reason)))
    said = (
        f"{len(counts)} jobs: at most {sum(counts):,} passes of one example, a backward pass "
        "counted as two. Once a job is finished, robaudit batch status estimates the time left."
    )
    return Group(table, Text(), Text(said))


_ORDER = ("running", "failed", "done", "waiting")
_STYLES = {"running": "bold", "failed": "red", "done": "green", "waiting": "dim"}


def _status(row: ListedJob, state: State) -> str:
    if row.key in state.results:
        return "done"
    if row.key in state.failed:
        return "failed"
    return "running" if row.key in state.running else "waiting"


def _what(row: ListedJob, state: State, now: float, first: ListedJob) -> str:
    if row.job.source != first.job.source:
        return f"the same file as {plain(first.job.source)}"
    status = _status(row, state)
    if status == "failed":
        return plain(state.failed[row.key])
    if status == "done":
        return headline_numbers(state.results[row.key])
    done = [stage for stage in row.stages if stage in state.stages.get(row.key, ())]
    at = f"{len(done)} of {len(row.stages)} stages" if row.stages else ""
    if status == "running":
        now_at = next((stage for stage in row.stages if stage not in done), "")
        return f"{at}, {now_at}"
    return at if done else ""


def _time(row: ListedJob, state: State, now: float) -> str:
    if row.key in state.results:
        seconds = state.seconds.get(row.key, 0.0)
    else:
        seconds = now - state.running[row.key] if row.key in state.running else 0.0
    return duration(seconds) if seconds else ""


def _first_of_key(rows: Sequence[ListedJob]) -> dict[str, ListedJob]:
    return {row.key: row for row in reversed(rows)}


def _data(name: str) -> str:
    return plain(name.rpartition("/")[2] if "/" in name else name)
