"""Progress bars and messages on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from robaudit.cli.messages import say, say_of
from robaudit.display import Display, Watch, Whole, no_watch
from robaudit.errors import RobauditError
from robaudit.types import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType


@contextmanager
def loading(quiet: bool) -> Iterator[None]:
    """Say on a terminal that PyTorch is being loaded, which takes seconds."""
    watched = not quiet and sys.stderr.isatty()
    if watched:
        print("loading PyTorch ...", end="", file=sys.stderr, flush=True)  # noqa: T201
    try:
        yield
    finally:
        if watched:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)  # noqa: T201


@dataclass(frozen=True)
class Screen(Display):
    """Messages on stderr, and one bar for the work at hand where that is a terminal.

    Attributes:
        quiet: neither bars nor notes.
    """

    quiet: bool = False

    def note(self, message: str, advice: str | None = None) -> None:
        if not self.quiet:
            say(message, advice)

    def warn(self, message: str, advice: str | None = None) -> None:
        say(message, advice)

    def failed(self, source: str, error: RobauditError) -> None:
        say_of(source, error)

    @contextmanager
    def bars(self, name: str, whole: Whole | None = None) -> Iterator[Watch]:
        from rich import progress as bars_of
        from rich.console import Console
        from rich.markup import escape
        from rich.text import Text

        if self.quiet or not sys.stderr.isatty():
            yield no_watch
            return

        class Bars(bars_of.Progress):
            """The bars, and a line below them on the whole run."""

            def get_renderables(self) -> Iterator[RenderableType]:
                yield from super().get_renderables()
                line = "" if whole is None else whole.line()
                if line:
                    yield Text(line, "bright_black")

        bars = Bars(
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
