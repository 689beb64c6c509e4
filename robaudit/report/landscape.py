"""A landscape as numbers: what its pictures and tables are drawn from, and its files."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from robaudit.report.naming import marked
from robaudit.report.text import csv_cell, model_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Losses:
    """A loss at the places of a landscape, in nats.

    Attributes:
        mean: over lines and examples, ``(p,)``, or over examples, ``(q, p)``.
        standard_error: over examples; ``nan`` where there is one example.
        lines: ``(r, p)`` by line; ``None`` over a plane.
    """

    mean: Array
    standard_error: Array
    lines: Array | None = None


@dataclass(frozen=True)
class Model:
    """One model's losses, by kind: ``clean`` and ``robust``, or around images just ``loss``."""

    source: str
    losses: dict[str, Losses]


@dataclass(frozen=True)
class Lines:
    """A one-dimensional landscape, of one model or of several over each other.

    Attributes:
        settings: all that the numbers depend on, as JSON has it.
        label: of the axis.
        ends: checkpoints on the axis: place and source.
    """

    settings: dict[str, Any]
    label: str
    s: Array
    models: tuple[Model, ...]
    ends: tuple[tuple[float, str], ...] = ()

    @property
    def names(self) -> list[str]:
        """A short name for each model; for a line between two, both of theirs."""
        if self.ends:
            return [" - ".join(_names([source for _, source in self.ends], self.settings))]
        return _names([model.source for model in self.models], self.settings)


@dataclass(frozen=True)
class Plane:
    """A two-dimensional landscape of one model, or through three.

    Attributes:
        labels: of the axes.
        corners: checkpoints on the plane: both places and source.
    """

    settings: dict[str, Any]
    labels: tuple[str, str]
    s: Array
    t: Array
    model: Model
    corners: tuple[tuple[float, float, str], ...] = ()

    @property
    def name(self) -> str:
        """The model's short name, or those of the three."""
        sources = [source for *_, source in self.corners] or [self.model.source]
        return ", ".join(_names(sources, self.settings))


Landscape: TypeAlias = Lines | Plane


def _names(sources: list[str], settings: dict[str, Any]) -> list[str]:
    """Short names; ``settings`` holds which of the networks are guesses."""
    assumed = settings.get("assumed", ())
    return [
        marked(name, source in assumed)
        for name, source in zip(model_names(sources), sources, strict=True)
    ]


def loss_name(kind: str) -> str:
    """A kind of loss as it is written over a panel."""
    return kind if kind == "loss" else f"{kind} loss"


def landscape_object(landscape: Landscape) -> dict[str, Any]:
    """What ``--json`` prints."""
    if isinstance(landscape, Lines):
        axes = {"s": landscape.s.tolist()}
        models = landscape.models
    else:
        axes = {"s": landscape.s.tolist(), "t": landscape.t.tolist()}
        models = (landscape.model,)
    return {
        **landscape.settings,
        **axes,
        "models": [
            {"source": model.source, **{k: _object(v) for k, v in model.losses.items()}}
            for model in models
        ],
    }


def landscape_csv(landscape: Landscape) -> str:
    """One row a place (and model): means, standard errors, and each line's where there are more."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if isinstance(landscape, Lines):
        several = _line_count(landscape.models[0]) > 1
        writer.writerow(["model", "s", *_columns(landscape.models[0], several)])
        for model in landscape.models:
            for at, s in enumerate(landscape.s.tolist()):
                writer.writerow([csv_cell(model.source), s, *_cells(model, (at,), several)])
    else:
        writer.writerow(["model", "s", "t", *_columns(landscape.model, False)])
        for row, t in enumerate(landscape.t.tolist()):
            for at, s in enumerate(landscape.s.tolist()):
                cells = _cells(landscape.model, (row, at), False)
                writer.writerow([csv_cell(landscape.model.source), s, t, *cells])
    return text.getvalue()


def _object(losses: Losses) -> dict[str, Any]:
    found = {"mean": losses.mean.tolist(), "standard_error": _known(losses.standard_error.tolist())}
    return found if losses.lines is None else {**found, "lines": losses.lines.tolist()}


def _known(values: Any) -> Any:
    """JSON has no ``nan``."""
    if isinstance(values, list):
        return [_known(value) for value in values]
    return None if math.isnan(values) else values


def _line_count(model: Model) -> int:
    lines = next(iter(model.losses.values())).lines
    return 1 if lines is None else len(lines)


def _columns(model: Model, several: bool) -> list[str]:
    names = []
    for kind in model.losses:
        names += [kind, f"{kind}_standard_error"]
        if several:
            names += [f"{kind}_{line + 1}" for line in range(_line_count(model))]
    return names


def _cells(model: Model, at: tuple[int, ...], several: bool) -> list[float | str]:
    cells: list[float | str] = []
    for losses in model.losses.values():
        error = float(losses.standard_error[at])
        cells += [float(losses.mean[at]), "" if math.isnan(error) else error]
        if several and losses.lines is not None:
            cells += [float(line[at]) for line in losses.lines]
    return cells
