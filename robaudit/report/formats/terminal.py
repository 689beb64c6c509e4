"""Tables for a terminal. Meaning never rests on colour; no foreign text is read as markup."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table as Grid
from rich.text import Text

from robaudit.report.numbers import aligned
from robaudit.report.table import BEST_NOTE, Cell, Column, Table, Tone
from robaudit.report.text import plain

MARK: Final = "*"
_STYLES: dict[Tone, str] = {
    "": "",
    "strong": "bold",
    "soft": "dim",
    "accent": "cyan",
    "good": "green",
    "warning": "yellow",
    "bad": "bold red",
    "missing": "",
}
_NUMBER = re.compile(r"±?[+-]?\d[\d,]*(\.\d+)?(e-?\d+)?\??( %)?")
_BAR = 12
_LEAST = 12  # width to which text is folded at most
_BETWEEN = 2  # from column to column


def terminal_view(*tables: Table) -> RenderableType:
    """The tables, one after the other, with an empty line between them.

    A table that is wider than the terminal is divided: text is folded first, then groups of columns
    become tables of their own, then as many as there must be. No number is ever cut.
    """
    return _View(tables)


def terminal_text(*tables: Table, width: int = 100) -> str:
    """The same without colours, as text that ends in a newline."""
    text = io.StringIO()
    console = Console(file=text, width=width, color_system=None, force_terminal=False)
    console.print(terminal_view(*tables))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


class _View:
    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for at, table in enumerate(self._tables):
            if at:
                yield Text()
            yield from _drawn(table, options.max_width)


def _drawn(table: Table, width: int) -> Iterable[RenderableType]:
    if table.title:
        yield Text(plain(table.title), style="bold", overflow="fold")
    if table.caption:
        yield Text(plain(table.caption), style="dim", overflow="fold")
    if table.columns:
        for at, kept in enumerate(_divided(table, width)):
            if at:
                yield Text()
            yield _grid(table.only(kept), width)
    notes = [f"{MARK} (bold): {BEST_NOTE}"] if table.ranked else []
    if notes or table.notes:
        if table.columns:
            yield Text()
        yield _bullets([*notes, *table.notes])


def _bullets(lines: Iterable[str]) -> Grid:
    grid = Grid.grid(padding=(0, 1))
    for line in lines:
        grid.add_row(Text(" -"), Text(plain(line), overflow="fold"))
    return grid


def _divided(table: Table, width: int) -> list[set[int]]:
    """The columns of each part: all in one if they fit, else of each group in equal parts."""
    least = [_widths(column, cells)[0] for column, cells in _columns(table)]
    everything = set(range(len(least)))
    named = {at for at in everything if table.columns[at].names}

    def fits(kept: set[int]) -> bool:
        return sum(least[at] + _BETWEEN for at in kept) - 1 <= width

    if fits(everything):
        return [everything]
    parts: list[set[int]] = []
    for _, group in groupby(sorted(everything - named), lambda at: table.columns[at].group):
        columns = list(group)
        for count in range(1, len(columns) + 1):
            size = math.ceil(len(columns) / count)
            divided = [named.union(columns[at : at + size]) for at in range(0, len(columns), size)]
            if all(map(fits, divided)) or size == 1:
                parts += divided
                break
    return parts or [everything]


def _columns(table: Table) -> list[tuple[Column, list[Text]]]:
    by_column = zip(*table.rows, strict=True) if table.rows else ((),) * len(table.columns)
    return [
        (column, _texts(column, cells, table.stacked))
        for column, cells in zip(table.columns, by_column, strict=True)
    ]


def _texts(column: Column, cells: Sequence[Cell], stacked: bool) -> list[Text]:
    """The cells as drawn; in a column of numbers, decimal points and error bars line up."""
    values, spreads = [plain(cell.text) for cell in cells], [plain(cell.spread) for cell in cells]
    unmarked = " " if any(cell.best for cell in cells) else ""
    marks = [
        MARK if cell.best else unmarked if _NUMBER.fullmatch(value) else ""
        for cell, value in zip(cells, values, strict=True)
    ]
    if column.align == "right" and not stacked:
        values, spreads = _aligned(values), _aligned(spreads)
        width = max(map(cell_len, values), default=0)
        values = [" " * (width - cell_len(value)) + value for value in values]
    beside = 0 if stacked else max(map(cell_len, spreads), default=0)
    texts = []
    for cell, value, spread, mark in zip(cells, values, spreads, marks, strict=True):
        drawn = Text(overflow="fold").append(value + mark, _STYLES[cell.tone])
        if cell.best:
            drawn.stylize("bold")
        if stacked:
            drawn.append(f"\n{spread}" if spread else "", "dim")
        elif spread or (beside and _NUMBER.fullmatch(value.strip())):
            drawn.append(" " + spread + " " * (beside - cell_len(spread)))
        texts.append(drawn)
    if any(cell.bar is not None for cell in cells):
        width = max(text.cell_len for text in texts)
        return [_barred(text, cell.bar, width) for text, cell in zip(texts, cells, strict=True)]
    return texts


def _aligned(texts: Sequence[str]) -> list[str]:
    """The texts, numbers among them padded so that their decimal points line up."""
    padded = aligned([text if _NUMBER.fullmatch(text) else "" for text in texts])
    return [one or text for one, text in zip(padded, texts, strict=True)]


def _barred(text: Text, bar: float | None, wide: int) -> Text:
    eighths = round(8 * _BAR * min(1.0, max(0.0, bar or 0.0)))
    drawn = "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]
    return Text.assemble(" " * (wide - text.cell_len), text, " ", (drawn.ljust(_BAR), "cyan"))


def _widths(column: Column, cells: Sequence[Text]) -> tuple[int, int]:
    """The smallest width at which no number is cut, and the width at which no text is folded."""
    lines = [line for cell in cells for line in cell.plain.split("\n")]
    body = max(map(cell_len, lines), default=0)
    heading = [plain(line) for line in column.heading.split("\n")]
    whole = max(body, *map(cell_len, heading))
    if not column.folds:
        return whole, whole
    return (min(_LEAST, whole) if column.align == "left" else max(body, min(8, whole))), whole


def _grid(table: Table, width: int) -> Grid:
    columns = _columns(table)
    ranges = [_widths(*one) for one in columns]
    widths = [whole for _, whole in ranges]
    room = width + 1 - _BETWEEN * len(columns)
    while (excess := sum(widths) - room) > 0:
        slack = [at for at, (least, _) in enumerate(ranges) if widths[at] > least]
        if not slack:
            break
        widest = max(slack, key=lambda at: widths[at])
        others = [widths[at] for at in slack if at != widest] or [0]
        step = max(1, min(excess, widths[widest] - max(*others, ranges[widest][0])))
        widths[widest] -= step
    grid = Grid(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        show_header=table.headed,
        header_style="bold",
        padding=(0, 0, 0, 1),
    )
    for column, wide in zip(table.columns, widths, strict=True):
        heading = Text("\n".join(plain(line) for line in column.heading.split("\n")))
        heading.overflow = "fold"
        grid.add_column(heading, justify=column.align, width=wide, overflow="fold")
    filled = [
        cells if column.align == "left" else [_flush(cell, wide) for cell in cells]
        for (column, cells), wide in zip(columns, widths, strict=True)
    ]
    for at, row in enumerate(zip(*filled, strict=True)):
        grid.add_row(*row, end_section=at + 1 in table.sections)
    return grid


def _flush(cell: Text, width: int) -> Text:
    """Flush right, keeping trailing spaces, which rich's right alignment would remove."""
    lines = cell.split("\n", allow_blank=True)
    for line in lines:
        line.pad_left(width - line.cell_len)
    filled = Text("\n", justify="left").join(lines)
    filled.justify = "left"
    return filled
