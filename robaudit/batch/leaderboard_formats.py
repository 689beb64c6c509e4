"""The leaderboard as a terminal's table, as CSV, as markdown and as a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as Drawn
from rich.text import Text

from robaudit.batch.leaderboard import Entry, Published, Table
from robaudit.batch.results import Number
from robaudit.report.numbers import DOUBTED
from robaudit.report.text import csv_cell, markdown, plain

_CSV = (
    *("data_and_threat", "place_best", "place_worst", "model", "source", "architecture"),
    *("sha256", "n", "clean", "clean_low", "clean_high", "attack", "robust", "robust_low"),
    *("robust_high", "published", "difference", "difference_noise", "external"),
    *("unreliable", "remarks", "doubts"),
)
_LEGEND = (
    "Place: those that the intervals leave open. Brackets: the interval. A value that ends in ? "
    "may overstate robustness: see the remarks."
)
_DIFFERENCE = (
    "Difference: ours less RobustBench's figure, and the standard error that fewer images give; "
    "! where it is beyond two of them."
)
_EXTERNAL = (
    "External: the accuracy that a stronger attack left, on RobustBench's leaderboard; unreliable "
    "where it says so of AutoAttack's."
)


def leaderboard_view(tables: Sequence[Table]) -> RenderableType:
    """For a terminal: a table for each data set and threat model, remarks below it."""
    parts: list[RenderableType] = []
    for table in tables:
        drawn = Drawn(
            box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", padding=(0, 1, 0, 0)
        )
        columns = _columns(table)
        for heading in _headings(table, columns):
            right = heading not in ("Model", "Remarks")
            drawn.add_column(
                heading, justify="right" if right else "left", no_wrap=right, overflow="fold"
            )
        for entry in table.entries:
            drawn.add_row(*(Text(text) for text in _cells(entry, columns)))
        parts += [Text(table.title, style="bold"), Text(), drawn]
        parts += [Text(f"  {text}", style="dim", overflow="fold") for text in _remarks(table)]
        parts.append(Text())
    parts.append(Text(_legend(tables), style="dim"))
    return Group(*parts)


def leaderboard_markdown(tables: Sequence[Table]) -> str:
    """One markdown document with a table for each data set and threat model."""
    lines: list[str] = ["# Leaderboard"]
    for table in tables:
        columns = _columns(table)
        headings = _headings(table, columns)
        rule = ["---" if name in ("Model", "Remarks") else "---:" for name in headings]
        lines += ["", f"## {markdown(table.title)}", ""]
        lines += [f"| {' | '.join(headings)} |", f"| {' | '.join(rule)} |"]
        for entry in table.entries:
            cells = (markdown(text) for text in _cells(entry, columns))
            lines.append(f"| {' | '.join(cells)} |")
        remarks = _remarks(table)
        lines += ["", *(f"- {markdown(text)}" for text in remarks)] if remarks else []
    return "\n".join([*lines, "", _legend(tables)]) + "\n"


def leaderboard_csv(tables: Sequence[Table]) -> str:
    """One row a model and table; fractions, unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV)
    for table in tables:
        for entry in table.entries:
            result = entry.result
            clean = None if result is None else result.get("accuracy.clean")
            theirs = entry.published
            row = (
                *(table.title, *(entry.places or (None, None)), entry.name, entry.source),
                *((result.architecture, result.sha256, result.n) if result else (None,) * 3),
                *_three(clean), table.attack, *_three(entry.robust),
                *((theirs.accuracy, theirs.difference, theirs.noise) if theirs else (None,) * 3),
                *((theirs.external, theirs.unreliable) if theirs else (None, None)),
                "; ".join(entry.remarks),
                "; ".join(entry.robust.doubts) if entry.robust else "",
            )  # fmt: skip
            writer.writerow(csv_cell(cell) if isinstance(cell, str) else cell for cell in row)
    return text.getvalue()


def leaderboard_html(tables: Sequence[Table]) -> str:
    """One self-contained page: tables to sort, and to filter by threat model and name."""
    from robaudit.report.html.page import page
    from robaudit.report.html.table import Cell, table

    grids = []
    for one in tables:
        columns = _columns(one)
        headings = _headings(one, columns)
        rows = [
            [
                Cell(text, number)
                for text, number in zip(
                    _cells(entry, columns, all_remarks=True), _sorts(entry, columns),
                    strict=True,
                )
            ]
            for entry in one.entries
        ]  # fmt: skip
        kinds = "".join(" " if name in ("Model", "Remarks") else "r" for name in headings)
        grids.append((one.threat, table(one.title, headings, rows, kinds, sortable=True)))
    return page("leaderboard.html.j2", title="Leaderboard", tables=grids, legend=_legend(tables))


def _legend(tables: Sequence[Table]) -> str:
    columns = [column for table in tables for column in _columns(table)]
    said = {"Difference": _DIFFERENCE, "External": _EXTERNAL}
    return " ".join([_LEGEND, *(text for name, text in said.items() if name in columns)])


def _columns(table: Table) -> list[str]:
    """Those of RobustBench's figures that it has."""
    found = [entry.published for entry in table.entries if entry.published is not None]
    if not found:
        return []
    outside = any(one.external is not None or one.unreliable for one in found)
    return ["Published", "Difference", *(["External"] if outside else [])]


def _headings(table: Table, columns: list[str]) -> list[str]:
    return ["Place", "Model", "Clean %", f"{table.attack} %", *columns, "Remarks"]


def _cells(entry: Entry, columns: list[str], all_remarks: bool = False) -> list[str]:
    clean = None if entry.result is None else entry.result.get("accuracy.clean")
    known = entry.published
    theirs = [_accuracy(known), _difference(known), _external(known)][: len(columns)]
    remarks = entry.remarks
    if entry.result is None or all_remarks:
        said = plain("; ".join(remarks))
    else:
        said = f"{len(remarks)} below" if remarks else ""
    return [entry.place, entry.name, _number(clean), _number(entry.robust), *theirs, said]


def _sorts(entry: Entry, columns: list[str]) -> list[float | None]:
    clean = None if entry.result is None else entry.result.value("accuracy.clean")
    robust = None if entry.robust is None else entry.robust.value
    known = entry.published
    theirs = (known.accuracy, known.difference, known.external) if known else (None,) * 3
    count = float(len(entry.remarks))
    best = None if entry.places is None else entry.places[0]
    return [best, None, clean, robust, *theirs[: len(columns)], count]


def _remarks(table: Table) -> list[str]:
    return [
        f"{entry.name}: {text}"
        for entry in table.entries
        if entry.result is not None
        for text in dict.fromkeys(entry.remarks)
    ]


def _number(number: Number | None) -> str:
    if number is None or number.value is None:
        return "-"
    value = f"{100 * number.value:.1f}{DOUBTED if number.doubts else ''}"
    if number.low is None or number.high is None:
        return value
    return f"{value} [{100 * number.low:.1f}, {100 * number.high:.1f}]"


def _accuracy(theirs: Published | None) -> str:
    return "" if theirs is None else f"{100 * theirs.accuracy:.2f}"


def _difference(theirs: Published | None) -> str:
    if theirs is None or theirs.difference is None or theirs.noise is None:
        return ""
    beyond = " !" if theirs.noise and abs(theirs.difference) > 2 * theirs.noise else ""
    noise = f" ± {100 * theirs.noise:.1f}" if theirs.noise else ""
    return f"{100 * theirs.difference:+.1f}{noise}{beyond}"


def _external(theirs: Published | None) -> str:
    if theirs is None:
        return ""
    figure = "" if theirs.external is None else f"{100 * theirs.external:.2f}"
    return " ".join(filter(None, (figure, "unreliable" if theirs.unreliable else "")))


def _three(number: Number | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if number is None else (number.value, number.low, number.high)
