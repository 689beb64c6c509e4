"""Tables of the pages: what stands in them, ready to be escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Cell:
    """What a cell shows; the number it is sorted by, where that is not its text."""

    text: str | Markup
    sort: float | None = None


@dataclass(frozen=True)
class Table:
    """A table with its caption, which also names it to a screen reader.

    Attributes:
        kinds: a letter a column: ``r`` numbers flush right, ``w`` a picture, else text.
        sortable: the headings are buttons.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kinds: str
    sortable: bool = False


def table(
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str | Markup | Cell]],
    kinds: str,
    sortable: bool = False,
) -> Table:
    """A table; whatever is no cell yet becomes one."""
    cells = [[one if isinstance(one, Cell) else Cell(one) for one in row] for row in rows]
    return Table(caption, headings, cells, kinds.ljust(len(headings)), sortable)
