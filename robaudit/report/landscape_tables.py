"""A landscape as tables: for a terminal, and all of its numbers for CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING

from robaudit.report.landscape import Landscape, Losses, Model, loss_name
from robaudit.report.numbers import number
from robaudit.report.sparkline import sparkline
from robaudit.report.table import Cell, Column, Table, estimate, names, text

if TYPE_CHECKING:
    from robaudit.report.landscape import Array

_MOST_COLUMNS = 13


def landscape_tables(landscape: Landscape) -> list[Table]:
    """Over lines a row a place, then the course of each loss drawn in one line; over a plane a grid
    for each loss, its top row the largest ``t``.
    """
    title = f"robaudit: {landscape.settings['title']}"
    if len(landscape.places) == 1:
        return _of_lines(landscape, title)
    return _of_plane(landscape, title)


def landscape_data(landscape: Landscape) -> Table:
    """For CSV: one row a place and model: means, standard errors, and by line where it has several.

    An empty cell is a standard error that is unknown.
    """
    axes = [places.tolist() for places in landscape.places]
    rows = [
        [model.source, *reversed(place), *_values(model, at)]
        for model in landscape.models
        for at, place in zip(
            product(*(range(len(axis)) for axis in reversed(axes))),
            product(*reversed(axes)),
            strict=True,
        )
    ]
    return Table.of(["model", *"st"[: len(axes)], *_keys(landscape.models[0])], rows)


def _of_lines(landscape: Landscape, title: str) -> list[Table]:
    found = [
        (name, kind, losses)
        for name, model in zip(landscape.names, landscape.models, strict=True)
        for kind, losses in model.losses.items()
    ]
    columns = [
        Column("s", names=True),
        *(Column(f"{name}\n{loss_name(kind)}") for name, kind, _ in found),
    ]
    places = (Cell(f"{s:z.4g}", value=s) for s in landscape.places[0].tolist())
    rows = list(zip(places, *(_estimates(losses) for *_, losses in found), strict=True))
    courses = [
        [
            Cell(f"{name}, {kind}"),
            Cell(sparkline(losses.mean.tolist()), tone="accent"),
            Cell(_range(losses.mean)),
        ]
        for name, kind, losses in found
    ]
    note = f"{landscape.labels[0]}. Losses in nats, ± one standard error over examples."
    return [
        Table(columns, rows, title),
        Table([names(), Column(align="left"), text()], courses),
        Table(caption=note),
    ]


def _estimates(losses: Losses) -> Iterable[Cell]:
    pairs = zip(losses.mean.tolist(), losses.standard_error.tolist(), strict=True)
    return [estimate(value, None if math.isnan(error) else error) for value, error in pairs]


def _of_plane(landscape: Landscape, title: str) -> list[Table]:
    # Every k-th column, so that the middle and both ends are among those shown.
    s, t = (places.tolist() for places in landscape.places)
    half = len(s) // 2
    step = next(
        k for k in range(1, half + 1) if half % k == 0 and 2 * half // k + 1 <= _MOST_COLUMNS
    )
    columns = [Column("t \\ s", names=True), *(Column(f"{place:z.3g}") for place in s[::step])]
    tables = [Table(title=title, caption=landscape.names[0])]
    for kind, losses in landscape.models[0].losses.items():
        rows = [
            [
                Cell(f"{t[row]:z.3g}", value=t[row]),
                *(Cell(number(one, 3), value=one) for one in losses.mean[row].tolist()[::step]),
            ]
            for row in reversed(range(0, len(t), step))
        ]
        notes = [f"{loss_name(kind)} {_range(losses.mean)}"]
        tables.append(Table(columns, rows, loss_name(kind), notes=notes))
    left = f" Every {step}. place is shown." if step > 1 else ""
    labels = "; ".join(landscape.labels)
    tables += _of_path(landscape)
    return [*tables, Table(caption=f"{labels}. Losses in nats.{left}")]


def _of_path(landscape: Landscape) -> list[Table]:
    """Where the checkpoints of a path are, and how far from the plane."""
    if not landscape.path:
        return []
    rows = [
        [
            Cell(point.label),
            *(Cell(number(one, 3), value=one) for one in place),
            Cell(f"{100 * point.off_plane:.0f} %", value=point.off_plane),
        ]
        for point, (place, _) in zip(landscape.path, landscape.checkpoints, strict=True)
    ]
    columns = [names("Checkpoint"), Column("s"), Column("t"), Column("off the\nplane")]
    note = (
        "Off the plane: distance from it, as a share of the distance from the last checkpoint. The "
        "loss drawn at a checkpoint is that of its projection on the plane."
    )
    return [Table(columns, rows, "path", notes=[note])]


def _range(values: Array) -> str:
    return f"{number(float(values.min()), 3)} to {number(float(values.max()), 3)}"


def _by_line(losses: Losses) -> list[Array]:
    """The losses of each line, where there are several."""
    return [] if losses.lines is None or len(losses.lines) < 2 else list(losses.lines)


def _keys(model: Model) -> list[str]:
    keys = []
    for kind, losses in model.losses.items():
        lines = range(1, len(_by_line(losses)) + 1)
        keys += [kind, f"{kind}_standard_error", *(f"{kind}_{line}" for line in lines)]
    return keys


def _values(model: Model, at: tuple[int, ...]) -> list[float | None]:
    values: list[float | None] = []
    for losses in model.losses.values():
        error = float(losses.standard_error[at])
        values += [float(losses.mean[at]), None if math.isnan(error) else error]
        values += [float(line[at]) for line in _by_line(losses)]
    return values
