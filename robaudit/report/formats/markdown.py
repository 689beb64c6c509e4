"""Tables as GitHub-flavoured markdown."""

from __future__ import annotations

from collections.abc import Iterable

from robaudit.report.table import BEST_NOTE, Cell, Table
from robaudit.report.text import markdown


def markdown_text(*tables: Table, level: int = 2) -> str:
    """The tables, one after the other, in text that ends in a newline.

    Args:
        level: of the headings that their titles become.
    """
    return "\n\n".join(part for table in tables for part in _parts(table, level)) + "\n"


def markdown_document(header: Table, *tables: Table) -> str:
    """A document whose title is that of the first table; those of the others are its headings."""
    return f"{markdown_text(header, level=1)}\n{markdown_text(*tables)}"


def markdown_bullets(lines: Iterable[str]) -> str:
    """One bullet a line."""
    return "\n".join(f"- {markdown(line)}" for line in lines)


def _parts(table: Table, level: int) -> Iterable[str]:
    if table.title:
        yield f"{'#' * level} {markdown(table.title)}"
    if table.caption:
        yield markdown(table.caption)
    if table.columns:
        for part in table.parts():
            if part.title:
                yield f"**{markdown(part.title)}**"
            yield _grid(part)
    notes = [f"Bold: {BEST_NOTE}"] if table.ranked else []
    if notes or table.notes:
        yield markdown_bullets([*notes, *table.notes])


def _grid(table: Table) -> str:
    headings = (markdown(column.heading.replace("\n", " ")) for column in table.columns)
    rules = ("---" if column.align == "left" else "---:" for column in table.columns)
    lines = [headings, rules, *((_cell(cell) for cell in row) for row in table.rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    value = markdown(cell.text)
    return f"{f'**{value}**' if cell.best else value} {markdown_spread(cell.spread)}".strip()


def markdown_spread(spread: str) -> str:
    r"""An error bar, not escaped where it consists of numbers and brackets alone.

    >>> markdown_spread("[38.1, 42.6]")
    '[38.1, 42.6]'
    """
    return spread if all(sign in "±[]+-., 0123456789e" for sign in spread) else markdown(spread)
