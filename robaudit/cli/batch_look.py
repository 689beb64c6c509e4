"""What a batch shows while it runs: a live table on a terminal, else a line for each job."""

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
    """Gives a function that shows on a terminal what is being read, until the block ends."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(escape(text))


@contextmanager
def looking(directory: Directory, quiet: bool) -> Iterator[Callable[[TaskEvent | None], None]]:
    """Gives a function that shows a run's events on stderr."""
    from rich.console import Console
    from rich.live import Live

    from robaudit.batch.view import log_line, run_table
    from robaudit.report.formats.terminal import terminal_view

    if quiet or not sys.stderr.isatty():

        def tell(event: TaskEvent | None) -> None:
            if event is not None and event.kind in ("done", "failed") and not quiet:
                say(log_line(event, directory.state(), time.time()))

        yield tell
        return
    state, driver = directory.state(), directory.driver()
    with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:

        def show(event: TaskEvent | None) -> None:
            nonlocal state, driver
            if event is not None:
                state, driver = directory.state(), directory.driver()
            live.update(terminal_view(run_table(state, driver, time.time())), refresh=True)

        yield show
