"""The curve as tables: for a terminal, and as markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement as Width
from rich.table import Table
from rich.text import Text

from robaudit.report.curve import Curve, Number
from robaudit.report.curve_axis import shown_place
from robaudit.report.numbers import aligned, number, shown_number
from robaudit.report.text import markdown

_BLOCKS = "▁▂▃▄▅▆▇█"
_FEWEST, _MOST = 4, 60  # points of a course that a line of blocks shows better than its column


@dataclass(frozen=True)
class _Column:
    heading: str
    quantity: str
    group: str
    factor: float = 1  # of points, for a fraction


_GROUPS = {
    "generalisation": "WCI and the robust generalisation gap",
    "parts": "What WCI is made of",
}
_COLUMNS = (
    _Column("WCI\ntest", "wci_test", "generalisation"),
    _Column("WCI\ntrain", "wci_train", "generalisation"),
    _Column("Robust loss\ntest", "loss_robust_test", "generalisation"),
    _Column("Robust loss\ntrain", "loss_robust_train", "generalisation"),
    _Column("Loss gap\nnats", "gap_loss", "generalisation"),
    _Column("Error gap\npoints", "gap_error", "generalisation", 100),
    _Column("Weights\nsum ||W_k||²", "weights_squared", "parts"),
    _Column("Trace, test\nsum Tr(H_k)", "trace_test", "parts"),
    _Column("Trace, train\nsum Tr(H_k)", "trace_train", "parts"),
)
_COURSES = {
    "WCI, test": "wci_test",
    "Robust loss gap": "gap_loss",
    "Robust error gap": "gap_error",
    "Weights": "weights_squared",
    "Trace, test": "trace_test",
}
_LEGEND = (
    "±: one standard error over examples. Checkpoints that were measured on the same examples "
    "differ more surely than their errors suggest."
)


def curve_view(curve: Curve) -> RenderableType:
    """The curve for a terminal: as many tables as its width asks for, no number cut."""
    return _View(curve)


def curve_markdown(curve: Curve) -> str:
    """The curve as two markdown tables with notes."""
    parts = []
    labels = _labels(curve)
    for group, title in _GROUPS.items():
        columns = [column for column in _columns(curve) if column.group == group]
        if not columns:
            continue
        headings = [label.heading for label in labels] + [
            column.heading.replace("\n", ", ") for column in columns
        ]
        rules = ["---" if label.text else "---:" for label in labels] + ["---:"] * len(columns)
        cells = [label.cells for label in labels] + [_cells(curve, column) for column in columns]
        rows = [
            f"| {' | '.join(markdown(' '.join(cell.split())) for cell in row)} |"
            for row in zip(*cells, strict=True)
        ]
        head = f"| {' | '.join(markdown(heading) for heading in headings)} |"
        parts.append("\n".join([f"**{title}**", "", head, f"| {' | '.join(rules)} |", *rows]))
    notes = "\n".join(f"- {markdown(note)}" for note in [*_legend(curve), *curve.notes])
    return "\n\n".join([*parts, notes] if notes else parts) + "\n"


@dataclass(frozen=True)
class _Label:
    """A column that says which checkpoint a row is."""

    heading: str
    cells: list[str]
    text: bool


class _View:
    """Columns are packed into tables by the width at hand; every table names its rows."""

    def __init__(self, curve: Curve) -> None:
        self._curve = curve

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        curve = self._curve
        columns = _columns(curve)

        def fits(some: Sequence[_Column]) -> bool:
            wide = options.update(width=10_000)
            table = _table(curve, some, narrow=True)
            return Width.get(console, wide, table).minimum <= options.max_width

        for at, some in enumerate(_packed(columns, fits)):
            if at:
                yield Text()
            yield _table(curve, some)
        courses = _courses(curve)
        if courses is not None:
            yield Text()
            yield courses
        notes = Table.grid(padding=(0, 1))
        for note in [*_legend(curve), *curve.notes]:
            notes.add_row(Text(" -"), Text(note, overflow="fold"))
        yield Text()
        yield notes


def _packed(
    columns: Sequence[_Column], fits: Callable[[Sequence[_Column]], bool]
) -> list[list[_Column]]:
    """All columns in one table, else one table a group, else as many as there must be."""
    if fits(columns):
        return [list(columns)]
    tables: list[list[_Column]] = []
    for column in columns:
        last = tables[-1] if tables else []
        if last and last[0].group == column.group and fits([*last, column]):
            last.append(column)
        else:
            tables.append([column])
    return tables


def _table(curve: Curve, columns: Sequence[_Column], narrow: bool = False) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, header_style="bold", padding=(0, 0, 0, 1))
    labels = _labels(curve)
    for label in labels:
        if label.text:
            table.add_column(label.heading, overflow="fold", min_width=12)
        else:
            _add(table, label.heading, label.cells)
    cells = [_cells(curve, column) for column in columns]
    for column, texts in zip(columns, cells, strict=True):
        _add(table, column.heading, texts)
    # Names fold to their least width; numbers must not.
    names = [[""] * len(label.cells) if narrow and label.text else label.cells for label in labels]
    for row in zip(*names, *cells, strict=True):
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    return table


def _add(table: Table, heading: str, cells: Sequence[str]) -> None:
    """A column of numbers, which is never cut."""
    width = max(map(len, [*heading.split("\n"), *cells]))
    table.add_column(heading, justify="right", no_wrap=True, min_width=width)


def _labels(curve: Curve) -> list[_Label]:
    """The axis where it is more than an order; the names where they say more than the axis."""
    places = [shown_place(point.place) for point in curve.points]
    names = [point.name for point in curve.points]
    axis = _Label(curve.axis.name.capitalize(), places, text=False)
    name = _Label("Model", names, text=True)
    return {"name": [axis], "file": [axis, name], "order": [name]}[curve.axis.by]


def _columns(curve: Curve) -> list[_Column]:
    return [column for column in _COLUMNS if curve.has(column.quantity)]


def _cells(curve: Curve, column: _Column) -> list[str]:
    """Values whose points, and errors whose signs, stand under each other; ``-`` for a gap."""
    shown = [
        None if found is None else _shown(found, column.factor)
        for found in curve.column(column.quantity)
    ]
    values = aligned(["" if pair is None else pair[0] for pair in shown])
    errors = aligned(["" if pair is None else pair[1] for pair in shown])
    left, right = (max(map(len, texts)) for texts in (values, errors))
    gap = " " * (right + 2) if right else ""
    return [
        "-" if pair is None else value.rjust(left) + (f" ±{error.ljust(right)}" if error else gap)
        for pair, value, error in zip(shown, values, errors, strict=True)
    ]


def _shown(found: Number, factor: float) -> tuple[str, str]:
    error = found.standard_error
    return shown_number(factor * found.value, None if error is None else factor * error)


def _legend(curve: Curve) -> list[str]:
    errors = (n.standard_error for point in curve.points for n in point.numbers.values())
    return [_LEGEND] if any(errors) else []


def _courses(curve: Curve) -> Table | None:
    """Each quantity's rise and fall in one line, so that they can be laid beside each other."""
    if not _FEWEST <= len(curve.points) <= _MOST or curve.axis.by == "order":
        return None
    table = Table.grid(padding=(0, 2))
    for label, quantity in _COURSES.items():
        column = curve.column(quantity)
        values = [found.value for found in column if found is not None]
        if len(values) < _FEWEST or min(values) == max(values):
            continue
        low, high = min(values), max(values)
        blocks = "".join(
            " " if found is None else _BLOCKS[round(7 * (found.value - low) / (high - low))]
            for found in column
        )
        factor = 100 if quantity == "gap_error" else 1
        scale = f"{number(factor * low, 3)} to {number(factor * high, 3)}"
        table.add_row(Text(f" {label}"), Text(blocks, style="cyan"), Text(scale, style="dim"))
    return table if table.row_count else None
