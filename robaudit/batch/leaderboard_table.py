"""The leaderboard as tables, for every format, and as a page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from robaudit.batch.leaderboard import Leaderboard, Published, RankedModel
from robaudit.report.paper import best_marked
from robaudit.report.table import Cell, Column, Table, measured, names, noted, text
from robaudit.schema import Measurement

_CSV = (
    *("data_and_threat", "place_best", "place_worst", "model", "source", "architecture"),
    *("sha256", "n", "clean", "clean_low", "clean_high", "attack", "robust", "robust_low"),
    *("robust_high", "published", "difference", "difference_noise", "external"),
    *("unreliable", "remarks", "doubts"),
)
_LEGEND = (
    "Place 2-4: second, third or fourth, as its interval overlaps its neighbours'. Brackets: the "
    "interval; ±: one standard error. A value that ends in ? may overstate robustness: see the "
    "remarks."
)
_DIFFERENCE = (
    "Difference: our accuracy minus the one that RobustBench publishes, with the standard error "
    "due to fewer images; ! where it is more than two standard errors."
)
_EXTERNAL = (
    "External: the accuracy under a stronger attack, from RobustBench's leaderboard; unreliable "
    "where RobustBench marks AutoAttack's accuracy so."
)


def leaderboard_tables(boards: Sequence[Leaderboard]) -> list[Table]:
    """A table for each leaderboard, with remarks below it, and the legend."""
    return [*(_table(board) for board in boards), Table(caption=_legend(boards))]


def leaderboard_paper(boards: Sequence[Leaderboard]) -> list[Table]:
    """A table for each leaderboard with the highest accuracies marked; the legend is a note."""
    legend = Table(caption=_legend(boards))
    ranked = (best_marked(_table(one), ("Clean %", f"{one.attack} %")) for one in boards)
    return noted([*ranked, legend])


def leaderboard_csv(boards: Sequence[Leaderboard]) -> Table:
    """All leaderboards in one table for CSV, a row for each model: fractions, unrounded."""
    beside = list(dict.fromkeys(row.name for board in boards for row in board.beside))
    columns = [name + end for name in beside for end in ("", "_low", "_high")]
    rows = (
        [
            *_csv_row(board, model),
            *(end for name in beside for end in _three(_other(model, name))),
        ]
        for board in boards
        for model in board.models
    )
    return Table.of((*_CSV, *columns), rows)


def leaderboard_html(boards: Sequence[Leaderboard], here: Path | None = None) -> str:
    """A self-contained page; its tables can be sorted, and filtered by threat model and name.

    Args:
        here: the folder that it is written to, for links to the pages of the reports.
    """
    from robaudit.report.html.page import page

    tables = [(board.threat, _linked(board, (here or Path()).absolute())) for board in boards]
    return page("leaderboard.html.j2", title="Leaderboard", tables=tables, legend=_legend(boards))


def _table(board: Leaderboard, all_remarks: bool = False) -> Table:
    """The remarks in a column of the table, else as notes below it."""
    columns = [Column("Place"), names("Model"), Column(f"{board.attack} %"), Column("Clean %")]
    columns += [Column(row.heading) for row in board.beside]
    published = _published_columns(board)
    columns += [Column(name) for name in published] + [text("Remarks")]
    rows = []
    for model in board.models:
        remarks = model.remarks
        said = "; ".join(remarks)
        if model.report is not None and not all_remarks:
            said = f"{len(remarks)} below" if remarks else ""
        row = [
            Cell(model.place, value=model.places[0] if model.places else None),
            Cell(model.name),
            measured(model.robust),
            measured(_clean(model)),
            *(measured(_other(model, row.name), prefer_error=True) for row in board.beside),
            *_published_cells(model.published)[: len(published)],
            Cell(said, value=len(remarks)),
        ]
        rows.append(row)
    notes = [
        f"{model.name}: {remark}"
        for model in board.models
        if model.report is not None and not all_remarks
        for remark in model.remarks
    ]
    return Table(columns, rows, board.title, notes=notes)


def _linked(board: Leaderboard, here: Path) -> Table:
    """The table for a page: names link to reports, and intervals are drawn in a column."""
    from robaudit.report.html.index_page import link
    from robaudit.report.html.page import interval_bar

    table = _table(board, all_remarks=True)
    rows = []
    for model, (place, name, robust, *others) in zip(board.models, table.rows, strict=True):
        if model.page is not None:
            name = replace(name, text=link(_relative(model.page, here), name.text))
        bar = Cell(interval_bar(*_three(model.robust)), value=model.accuracy)
        rows.append([place, name, robust, bar, *others])
    columns = [*table.columns[:3], Column("0 to 100 %", "left")]
    return replace(table, columns=[*columns, *table.columns[3:]], rows=rows)


def _relative(page: Path, here: Path) -> str:
    try:
        return Path(os.path.relpath(page, here)).as_posix()
    except ValueError:  # on another drive
        return page.as_posix()


def _legend(boards: Sequence[Leaderboard]) -> str:
    columns = {column for board in boards for column in _published_columns(board)}
    said = {"Difference": _DIFFERENCE, "External": _EXTERNAL}
    return " ".join([_LEGEND, *(words for name, words in said.items() if name in columns)])


def _published_columns(board: Leaderboard) -> list[str]:
    """The columns for the figures of RobustBench that the leaderboard has."""
    found = [model.published for model in board.models if model.published is not None]
    if not found:
        return []
    outside = any(one.external is not None or one.unreliable for one in found)
    return ["Published", "Difference", *(["External"] if outside else [])]


def _published_cells(theirs: Published | None) -> list[Cell]:
    if theirs is None:
        return [Cell()] * 3
    difference = Cell()
    if theirs.difference is not None and theirs.noise is not None:
        beyond = " !" if theirs.noise and abs(theirs.difference) > 2 * theirs.noise else ""
        noise = f"±{100 * theirs.noise:.1f}{beyond}" if theirs.noise else ""
        difference = Cell(f"{100 * theirs.difference:+.1f}", noise, value=theirs.difference)
    figure = "" if theirs.external is None else f"{100 * theirs.external:.2f}"
    external = " ".join(filter(None, (figure, "unreliable" if theirs.unreliable else "")))
    return [
        Cell(f"{100 * theirs.accuracy:.2f}", value=theirs.accuracy),
        difference,
        Cell(external, value=theirs.external),
    ]


def _csv_row(board: Leaderboard, model: RankedModel) -> list[object]:
    report, theirs, robust = model.report, model.published, model.robust
    none: tuple[None, ...] = (None,) * 5
    return [
        board.title, *(model.places or none[:2]), model.name, model.source,
        *((report.subject.architecture, report.subject.sha256, report.data.n) if report
          else none[:3]),
        *_three(_clean(model)), board.attack, *_three(robust),
        *((theirs.accuracy, theirs.difference, theirs.noise, theirs.external, theirs.unreliable)
          if theirs else none),
        "; ".join(model.remarks),
        "; ".join(robust.doubts) if robust else "",
    ]  # fmt: skip


def _clean(model: RankedModel) -> Measurement | None:
    return _other(model, "accuracy.clean")


def _other(model: RankedModel, name: str) -> Measurement | None:
    return None if model.report is None else model.report.get(name)


def _three(measurement: Measurement | None) -> tuple[float | None, float | None, float | None]:
    """The value and the ends of its interval."""
    if measurement is None:
        return None, None, None
    interval = measurement.interval
    ends = (interval.low, interval.high) if interval else (None, None)
    return measurement.value, *ends
