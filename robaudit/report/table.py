r"""The one table that every view of a report is made of; :mod:`robaudit.report.formats` draws it.

>>> from robaudit.report.formats.markdown import markdown_text
>>> leaderboard = Table(
...     [names("Model"), Column("PGD\nacc. %")],
...     [[Cell("at"), Cell("53.4", "[50.3, 56.5]", best=True)], [Cell("plain"), Cell("0.0")]],
...     title="Leaderboard",
...     notes=["In brackets: 95 % intervals."],
... )
>>> print(markdown_text(leaderboard))
## Leaderboard
<BLANKLINE>
| Model | PGD acc. % |
| --- | ---: |
| at | **53.4** [50.3, 56.5] |
| plain | 0.0 |
<BLANKLINE>
- Bold: best of its column; where intervals overlap, that may be chance.
- In brackets: 95 % intervals.
<BLANKLINE>
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from robaudit.report.numbers import shown, shown_number
from robaudit.schema import Measurement

Tone = Literal["", "strong", "soft", "accent", "good", "warning", "bad", "missing"]
"""What a cell means, where that can be shown by colour; its text says the same."""

BEST_NOTE = "best of its column; where intervals overlap, that may be chance."


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        heading: in one or more lines; where no column has one, no headings are drawn.
        align: right for numbers, whose decimal points are put under each other.
        folds: text that may be broken into several lines; a cell of other columns is never broken.
        names: says which row it is: repeated in every part of a table that is too wide.
        group: the title over neighbouring columns that belong together; a table that is too wide
            is divided between groups first.
    """

    heading: str = ""
    align: Literal["left", "right"] = "right"
    folds: bool = False
    names: bool = False
    group: str = ""


@dataclass(frozen=True)
class Cell:
    """One cell. Every text may be foreign: the renderers make it harmless.

    Attributes:
        text: the value as it is shown. In tables for HTML only, it may be ``markupsafe.Markup``.
        spread: its error bar: ``±1.2`` or ``[38.1, 42.6]``.
        best: the best of its column.
        tone: what it means.
        value: the number itself, unrounded, which CSV holds and pages sort by.
        bar: a fraction from 0 to 1 that is drawn beside the text, where that can be drawn.
        about: what a page says of the text where a pointer rests on it.
    """

    text: str = ""
    spread: str = ""
    best: bool = False
    tone: Tone = ""
    value: float | None = None
    bar: float | None = None
    about: str = ""


MISSING = Cell("-", tone="missing")


@dataclass(frozen=True)
class Table:
    """Columns and rows, with what stands above and below them.

    Without columns it is a titled list of ``notes``; a document is a sequence of tables.

    Attributes:
        rows: as many cells each as there are columns.
        title: above it; ``""`` for none.
        caption: a line of explanation between the title and the columns.
        notes: below it, one bullet each.
        sections: numbers of the rows before which a line is drawn.
        stacked: error bars stand under their values where lines can be broken, not after them.
    """

    columns: Sequence[Column] = ()
    rows: Sequence[Sequence[Cell]] = ()
    title: str = ""
    caption: str = ""
    notes: Sequence[str] = ()
    sections: Collection[int] = ()
    stacked: bool = False

    @classmethod
    def of(cls, headings: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
        """A table of plain values, as for CSV: numbers unrounded, ``None`` as an empty cell."""
        return cls([Column(name) for name in headings], [[_plain(one) for one in r] for r in rows])

    def only(self, kept: Collection[int]) -> Table:
        """The table with the columns of these numbers alone, without title and notes."""
        return replace(
            self,
            columns=[column for at, column in enumerate(self.columns) if at in kept],
            rows=[[cell for at, cell in enumerate(row) if at in kept] for row in self.rows],
            title="",
            caption="",
            notes=(),
        )

    @property
    def headed(self) -> bool:
        """Whether some column has a heading."""
        return any(column.heading for column in self.columns)

    @property
    def ranked(self) -> bool:
        """Whether some cell is marked as the best of its column."""
        return any(cell.best for row in self.rows for cell in row)

    def parts(self) -> list[Table]:
        """One table for each group of columns, titled by it, all with the names of the rows."""
        named = {at for at, column in enumerate(self.columns) if column.names}
        groups: dict[str, set[int]] = {}
        for at, column in enumerate(self.columns):
            if at not in named:
                groups.setdefault(column.group, set()).add(at)
        if len(groups) < 2:
            return [self.only(range(len(self.columns)))]
        return [replace(self.only(named | own), title=group) for group, own in groups.items()]


def names(heading: str = "") -> Column:
    """The column that says which row it is."""
    return Column(heading, "left", folds=True, names=True)


def text(heading: str = "") -> Column:
    """A column of text that may be broken into lines."""
    return Column(heading, "left", folds=True)


def facts(rows: Iterable[tuple[str, str]], title: str = "") -> Table:
    """A table of names and what they are, without headings."""
    cells = [[Cell(name, tone="soft"), Cell(value)] for name, value in rows]
    return Table([names(), text()], cells, title)


def bullets(title: str, lines: Sequence[str]) -> list[Table]:
    """A titled list of lines; nothing where there is no line."""
    return [Table(title=title, notes=lines)] if lines else []


def noted(tables: Iterable[Table]) -> list[Table]:
    """The tables with columns; what others say becomes notes of the one before."""
    found: list[Table] = []
    for table in tables:
        if table.columns:
            found.append(table)
        elif found:
            begin = f"{table.title}: " if table.title else ""
            said = [begin + line for line in (table.caption, *table.notes) if line]
            found[-1] = replace(found[-1], notes=[*found[-1].notes, *said])
    return found


def estimate(value: float | None, error: float | None = None, factor: float = 1) -> Cell:
    """A number with its standard error, to two digits of the error; ``None`` for a gap.

    Args:
        factor: by which it is shown: 100 for a fraction in per cent. ``Cell.value`` stays as it is.
    """
    if value is None:
        return MISSING
    said, spread = shown_number(factor * value, None if error is None else factor * error)
    return Cell(said, f"±{spread}" if spread else "", value=value)


def measured(measurement: Measurement | None, prefer_error: bool = False) -> Cell:
    """A measurement without its unit; its status where it has no value; ``-`` where it is missing.

    Args:
        prefer_error: see :func:`robaudit.report.numbers.shown`.
    """
    if measurement is None:
        return MISSING
    if measurement.status != "ok":
        return Cell(measurement.status, tone="bad" if measurement.status == "failed" else "warning")
    parts = shown(measurement, prefer_error)
    return Cell(parts.value, parts.spread.replace("± ", "±"), value=measurement.value)


def _plain(value: object) -> Cell:
    if isinstance(value, int | float):
        return Cell(str(value), value=value)
    return Cell("" if value is None else str(value))
