"""A landscape in the terminal: its numbers, and their course in one line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from robaudit.report.landscape import Landscape, Lines, Losses, loss_name
from robaudit.report.numbers import aligned, number, shown_number

if TYPE_CHECKING:
    from robaudit.report.landscape import Array, Plane

_BLOCKS = "▁▂▃▄▅▆▇█"
_MOST_COLUMNS = 13


def landscape_view(landscape: Landscape) -> RenderableType:
    """Lines: a row a place, then a sparkline a loss. A plane: a grid a loss, its top row the
    largest ``t``.
    """
    parts = _of_lines(landscape) if isinstance(landscape, Lines) else _of_plane(landscape)
    title = Text(f"robaudit: {landscape.settings['title']}", style="bold")
    return Group(title, Text(""), *parts)


def _of_lines(landscape: Lines) -> list[RenderableType]:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("\ns", justify="right")
    columns = [
        (name, kind, losses)
        for name, model in zip(landscape.names, landscape.models, strict=True)
        for kind, losses in model.losses.items()
    ]
    for name, kind, _ in columns:
        table.add_column(Text(f"{name}\n{loss_name(kind)}"), justify="right")
    cells = [_cells(losses) for _, _, losses in columns]
    places = aligned([f"{s:z.4g}" for s in landscape.s.tolist()])
    for row in zip(places, *cells, strict=True):
        table.add_row(*row)
    courses = Table.grid(padding=(0, 2))
    for name, kind, losses in columns:
        low, high = float(losses.mean.min()), float(losses.mean.max())
        scale = f"{number(low, 3)} to {number(high, 3)}"
        courses.add_row(
            Text(f"{name}, {kind}"), Text(_sparkline(losses.mean), style="cyan"), Text(scale)
        )
    note = f"{landscape.label}. Losses in nats, ± one standard error over examples."
    return [table, Text(""), courses, Text(""), Text(note, style="dim")]


def _of_plane(landscape: Plane) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(landscape.name, style="bold")]
    # Every k-th column, so that the middle and both ends are among those shown.
    half = len(landscape.s) // 2
    step = next(
        k for k in range(1, half + 1) if half % k == 0 and 2 * half // k + 1 <= _MOST_COLUMNS
    )
    for kind, losses in landscape.model.losses.items():
        table = Table(title=loss_name(kind), box=None, title_justify="left", padding=(0, 1, 0, 0))
        table.add_column("t \\ s", justify="right")
        for s in landscape.s.tolist()[::step]:
            table.add_column(f"{s:z.3g}", justify="right")
        for row in reversed(range(0, len(landscape.t), step)):
            cells = [number(value, 3) for value in losses.mean[row].tolist()[::step]]
            table.add_row(f"{landscape.t[row]:z.3g}", *cells)
        low, high = float(losses.mean.min()), float(losses.mean.max())
        parts += [table, Text(f"{loss_name(kind)} {number(low, 3)} to {number(high, 3)}"), Text("")]
    s, t = landscape.labels
    left = f" Every {step}. place is shown." if step > 1 else ""
    parts.append(Text(f"{s}; {t}. Losses in nats.{left}", style="dim"))
    return parts


def _cells(losses: Losses) -> list[str]:
    """Values and standard errors, their points under each other."""
    pairs = [
        shown_number(value, None if math.isnan(error) else error)
        for value, error in zip(losses.mean.tolist(), losses.standard_error.tolist(), strict=True)
    ]
    values = aligned([value for value, _ in pairs])
    errors = aligned([error for _, error in pairs])
    return [f"{v} ±{e}" if e.strip() else v for v, e in zip(values, errors, strict=True)]


def _sparkline(values: Array) -> str:
    low, high = float(values.min()), float(values.max())
    if high == low:
        return _BLOCKS[0] * len(values)
    return "".join(_BLOCKS[round(7 * (value - low) / (high - low))] for value in values.tolist())
