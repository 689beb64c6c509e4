"""A table as a fragment of an HTML page."""

from __future__ import annotations

from markupsafe import Markup, escape

from robaudit.report.table import BEST_NOTE, Cell, Column, Table
from robaudit.report.text import plain

_LONG = 24  # letters from which a cell's text is given room before it is broken into lines


def html_table(table: Table, sortable: bool = False, show_title: bool = True) -> Markup:
    """A ``<table>`` with its title as caption, in a box that scrolls, and the notes below it.

    Classes: ``kr`` for cells flush right, ``best`` for the best of a column, ``spread`` for an
    error bar, ``tone-...`` for what a cell means, ``long`` for text of several lines;
    ``data-sort`` holds the unrounded number.

    Args:
        sortable: the headings are buttons, for a page whose script sorts.
        show_title: else the caption is for screen readers only.
    """
    named = escape(plain(table.title))
    unseen = "" if show_title else ' class="unseen"'
    classes = ' class="sortable"' if sortable else ""
    heads = "".join(_heading(column, sortable) for column in table.columns)
    body = "\n".join(
        "<tr>" + "".join(map(_cell, row, table.columns, range(len(row)))) + "</tr>"
        for row in table.rows
    )
    head = f"<thead><tr>{heads}</tr></thead>\n" if table.headed else ""
    lines = [*([f"Bold: {BEST_NOTE}"] if table.ranked else []), *table.notes]
    notes = "".join(f"<li>{escape(plain(line))}</li>" for line in lines)
    caption = f'<p class="note">{escape(plain(table.caption))}</p>\n' if table.caption else ""
    # Every text in it was escaped above.
    return Markup(  # noqa: S704
        f'{caption}<div class="scroll" role="region" tabindex="0" aria-label="{named}">\n'
        f"<table{classes}>\n<caption{unseen}>{named}</caption>\n{head}"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>\n"
        + (f'<ul class="notes">{notes}</ul>\n' if notes else "")
    )


def explained(text: str, about: str) -> Markup:
    """The text, with what is said of it where a pointer rests on it; HTML that is safe."""
    words = escape(text if isinstance(text, Markup) else plain(text))
    if not about:
        return words
    return Markup('<abbr title="{}">{}</abbr>').format(plain(about), words)


def _heading(column: Column, sortable: bool) -> str:
    if not column.heading:
        return "<td></td>"
    words = escape(plain(column.heading))
    inner = f'<button type="button">{words}</button>' if sortable else words
    return f'<th scope="col" class="{_kind(column)}">{inner}</th>'


def _cell(cell: Cell, column: Column, at: int) -> str:
    inner = str(explained(cell.text, cell.about))
    if cell.best:
        inner = f'<strong class="best">{inner}</strong>'
    if cell.spread:
        inner += f' <span class="spread">{escape(plain(cell.spread))}</span>'
    tone = f" tone-{cell.tone}" if cell.tone else ""
    tone += " long" if column.folds and at > 0 and len(cell.text) > _LONG else ""
    sort = "" if cell.value is None else f' data-sort="{cell.value}"'
    tag, scope = ("th", ' scope="row"') if at == 0 else ("td", "")
    return f'<{tag}{scope} class="{_kind(column)}{tone}"{sort}>{inner}</{tag}>'


def _kind(column: Column) -> str:
    return "kr" if column.align == "right" else "k"
