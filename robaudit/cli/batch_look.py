"""What a batch shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from robaudit.cli.messages import say

if TYPE_CHECKING:
    from robaudit.batch.directory import Directory
    from robaudit.batch.tasks import TaskEvent


@contextmanager
def reading(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Takes what is being read, and shows it on a terminal until the block ends."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(escape(text))


@contextmanager
def looking(directory: Directory, quiet: bool) -> Iterator[Callable[[TaskEvent | None], None]]:
    """Takes what happens in a run, and shows it on stderr."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _table(directory) as look:
            yield look
    else:
        yield lambda event: _line(directory, event)


@contextmanager
def _table(directory: Directory) -> Iterator[Callable[[TaskEvent | None], None]]:
    from rich.console import Console
    from rich.live import Live

    from robaudit.batch.view import run_table
    from robaudit.report.formats.terminal import terminal_view

    state = directory.state()
    driver = directory.driver()
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:

        def look(event: TaskEvent | None) -> None:
            nonlocal state, driver
            if event is not None:
                state, driver = directory.state(), directory.driver()
            live.update(terminal_view(run_table(state, driver, time.time())), refresh=True)

        yield look


def _line(directory: Directory, event: TaskEvent | None) -> None:
    if event is None or event.kind not in ("done", "failed"):
        return
    from robaudit.batch.view import log_line

    say(log_line(event, directory.state(), time.time()))
