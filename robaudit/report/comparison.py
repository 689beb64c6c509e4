"""Several reports side by side: a WCI curve, or one row a model, the best of each column marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement as Width
from rich.table import Table
from rich.text import Text

from robaudit.errors import UsageError
from robaudit.report.curve import curve, is_curve
from robaudit.report.curve_table import curve_markdown, curve_view
from robaudit.report.differences import architectures_differ, differing, gone, settings_differ
from robaudit.report.naming import names_of
from robaudit.report.numbers import shown
from robaudit.report.text import markdown
from robaudit.schema import Measurement, Report

MARK = "*"


@dataclass(frozen=True)
class _Column:
    heading: str
    name: str
    split: str | None = None
    higher_is_better: bool = False
    of_one_architecture: bool = False


_COLUMNS = (
    _Column("Clean\nacc. %", "accuracy.clean", higher_is_better=True),
    _Column("PGD\nacc. %", "accuracy.pgd", higher_is_better=True),
    _Column("AutoAtt.\nacc. %", "accuracy.autoattack", higher_is_better=True),
    _Column("Robust\nloss", "loss.robust"),
    _Column("Loss\ngap", "gap.loss", "gap"),
    _Column("WCI", "wci", of_one_architecture=True),
    _Column("Flatn.\naverage", "flatness.average"),
    _Column("Flatn.\nworst", "flatness.worst"),
    _Column("Largest\neigenv.", "hessian.largest", of_one_architecture=True),
)


@dataclass(frozen=True)
class _Cell:
    value: str
    spread: str
    best: bool


@dataclass(frozen=True)
class _Grid:
    columns: list[_Column]
    names: list[str]
    cells: list[list[_Cell]]  # one list a model
    ranked: bool
    notes: list[str]


def comparison_view(reports: Sequence[Report]) -> RenderableType:
    """The comparison for a terminal; in a narrow one, as two tables under each other.

    Reports of WCI alone are shown as a curve.

    Raises:
        UsageError: no reports.
    """
    if is_curve(reports):
        return curve_view(curve(reports))
    return _View(_grid(reports))


def comparison_markdown(reports: Sequence[Report]) -> str:
    """The comparison, or the curve, as markdown tables with notes.

    Raises:
        UsageError: no reports.
    """
    if is_curve(reports):
        return curve_markdown(curve(reports))
    grid = _grid(reports)
    headings = ["Model", *(column.heading.replace("\n", " ") for column in grid.columns)]
    lines = [
        f"| {' | '.join(headings)} |",
        f"| {' | '.join(['---', *('---:' for _ in grid.columns)])} |",
    ]
    for name, cells in zip(grid.names, grid.cells, strict=True):
        texts = (
            f"{f'**{cell.value}**' if cell.best else cell.value} {cell.spread}".strip()
            for cell in cells
        )
        lines.append(f"| {' | '.join([markdown(name), *texts])} |")
    notes = _legend(grid, "Bold", "After a value") + grid.notes
    lines += ["", *(f"- {markdown(note)}" for note in notes)]
    return "\n".join(lines).rstrip() + "\n"


class _View:
    """Two tables where one would be cut: a number that loses its end is a wrong number."""

    def __init__(self, grid: _Grid) -> None:
        self._grid = grid

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        count = len(self._grid.columns)
        whole = _table(self._grid, range(count))
        # Names fold to their least width; numbers must not.
        bare = _table(replace(self._grid, names=[""] * len(self._grid.names)), range(count))
        if Width.get(console, options.update(width=10_000), bare).minimum > options.max_width:
            half = (count + 1) // 2
            yield _table(self._grid, range(half))
            yield Text()
            yield _table(self._grid, range(half, count))
        else:
            yield whole
        notes = Table.grid(padding=(0, 1))
        legend = _legend(self._grid, f"{MARK} (bold)", "Under a value")
        for note in legend + self._grid.notes:
            notes.add_row(Text(" -"), Text(note, overflow="fold"))
        yield Group(Text(), notes)


def _table(grid: _Grid, kept: range) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", padding=(0, 0, 0, 1))
    table.add_column("Model", overflow="fold", min_width=12, vertical="top")
    for i in kept:
        table.add_column(grid.columns[i].heading, justify="right", no_wrap=True)
    for name, cells in zip(grid.names, grid.cells, strict=True):
        texts = (_text(cells[i]) for i in kept)
        table.add_row(Text(name, overflow="fold"), *texts, end_section=False)
    return table


def _text(cell: _Cell) -> Text:
    value = (f"{cell.value}{MARK}", "bold") if cell.best else (f"{cell.value} ", "")
    return Text.assemble(value, ("\n" + cell.spread, "dim") if cell.spread else "")


def _grid(reports: Sequence[Report]) -> _Grid:
    if not reports:
        raise UsageError("a comparison needs at least one report")
    columns = [c for c in _COLUMNS if any(report.get(c.name, c.split) for report in reports)]
    unlike = differing(reports)
    found = [[report.get(c.name, c.split) for c in columns] for report in reports]
    mixed = architectures_differ(reports)
    best = [
        set()
        if unlike or (mixed and column.of_one_architecture)
        else _best([row[i] for row in found], column)
        for i, column in enumerate(columns)
    ]
    names = names_of([report.subject for report in reports])
    cells = [
        [_cell(m, place in best[i]) for i, m in enumerate(row)] for place, row in enumerate(found)
    ]
    notes = [f"{unlike}: no column is ranked."] if unlike else []
    notes += [*_caveats(reports), *gone(names, reports)]
    return _Grid(columns, names, cells, any(best), notes)


def _legend(grid: _Grid, mark: str, place: str) -> list[str]:
    lines = []
    if grid.ranked:
        lines.append(f"{mark}: best of its column; where intervals overlap, that may be chance.")
    if any(cell.spread for row in grid.cells for cell in row):
        lines.append(f"{place}: its confidence interval, or ± one standard error.")
    return lines


def _best(column: Sequence[Measurement | None], kind: _Column) -> set[int]:
    """The rows that hold the best value: several at a tie, none where all agree."""
    values = {i: m.value for i, m in enumerate(column) if m is not None and m.value is not None}
    if len(set(values.values())) < 2:
        return set()
    top = (max if kind.higher_is_better else min)(values.values())
    return {i for i, value in values.items() if value == top}


def _cell(measurement: Measurement | None, best: bool) -> _Cell:
    if measurement is None:
        return _Cell("-", "", False)
    if measurement.status != "ok":
        return _Cell(measurement.status, "", False)
    parts = shown(measurement, prefer_error=True)
    spread = parts.spread.replace(", ", "-") if "[-" not in parts.spread else parts.spread
    return _Cell(parts.value, spread.strip("[]").replace("± ", "±"), best)


def _caveats(reports: Sequence[Report]) -> list[str]:
    notes = [
        f"{words} ran with different settings."
        for name, words in (("accuracy.pgd", "PGD"), ("accuracy.autoattack", "AutoAttack"))
        if settings_differ(reports, name)
    ]
    if architectures_differ(reports):
        notes.append("Architectures differ: WCI and eigenvalues depend on them and are not ranked.")
    return notes
