"""A comparison for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from robaudit.report.compare import Comparison
from robaudit.report.compare_words import changed, headings, notes, rows
from robaudit.report.facts import short_threat
from robaudit.report.text import plain


def compare_view(comparison: Comparison) -> RenderableType:
    """The table of differences, which examples changed, and what to bear in mind."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", padding=(0, 0, 0, 1))
    head = headings(comparison)
    table.add_column(head.label, overflow="fold", min_width=16)
    for name in (head.first, head.second):
        table.add_column(Text(name, overflow="fold"), justify="right", min_width=8)
    for name in (head.difference, head.p_value, head.changed):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows(comparison):
        table.add_row(*(Text(cell, overflow="fold") for cell in vars(row).values()))
    lists = [(title, found) for title, found in (
        ("Examples that changed, by their places in the data set", changed(comparison)),
        ("Notes", notes(comparison)),
    ) if found]  # fmt: skip
    parts: list[RenderableType] = [_title(comparison), Text(), table]
    for title, lines in lists:
        grid = Table.grid(padding=(0, 1))
        for line in lines:
            grid.add_row(Text(" -"), Text(line, overflow="fold"))
        parts += [Text(), Text(title, "bold"), grid]
    return Group(*parts)


def _title(comparison: Comparison) -> Text:
    data, threat = comparison.first.data, comparison.first.threat
    other = comparison.second.threat
    models = short_threat(threat)
    if other != threat:
        models += f" and {short_threat(other)}"
    title = Text(f"robaudit: {comparison.names[0]} and {comparison.names[1]}", "bold")
    title.append(
        f"\n{plain(data.name)} {plain(data.split)}, the same {data.n:,} examples, {models}", "dim"
    )
    return title
