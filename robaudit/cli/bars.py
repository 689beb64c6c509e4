"""Progress bars on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robaudit.audit import Watch
    from robaudit.types import Progress


@contextmanager
def progress_bar(name: str, quiet: bool) -> Iterator[Watch]:
    """One bar for the work at hand, on stderr, where that is a terminal."""
    from contextlib import nullcontext

    from rich import progress as bars_of
    from rich.console import Console
    from rich.markup import escape

    if quiet or not sys.stderr.isatty():
        yield lambda _: nullcontext()
        return
    bars = bars_of.Progress(
        bars_of.TextColumn("{task.description}"),
        bars_of.BarColumn(bar_width=24),
        bars_of.TextColumn("{task.percentage:>3.0f} %"),
        bars_of.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )

    @contextmanager
    def watch(label: str) -> Iterator[Progress | None]:
        task = bars.add_task(escape(f"{name}: {label}"), total=None)

        def advance(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        try:
            yield advance
        finally:
            bars.remove_task(task)

    with bars:
        yield watch
