"""The numbers of a loss landscape, from which its tables, pictures and files are made."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from robaudit.report.naming import marked
from robaudit.report.text import model_names

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Losses:
    """A loss at every place of a landscape, in nats.

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
    """One model's losses by kind: ``clean`` and ``robust``; over images, ``loss`` alone."""

    source: str
    losses: dict[str, Losses]


@dataclass(frozen=True)
class Lines:
    """A one-dimensional landscape of one model, or of several in one picture.

    Attributes:
        settings: everything that the numbers depend on, as in JSON.
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
    """Short names; those of networks that were guessed say so."""
    assumed = settings.get("assumed", ())
    return [
        marked(name, source in assumed)
        for name, source in zip(model_names(sources), sources, strict=True)
    ]


def loss_name(kind: str) -> str:
    """The title of a panel for a kind of loss."""
    return kind if kind == "loss" else f"{kind} loss"


def landscape_object(landscape: Landscape) -> dict[str, Any]:
    """The landscape as JSON has it: settings, places, and losses by model."""
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


def _object(losses: Losses) -> dict[str, Any]:
    found = {"mean": losses.mean.tolist(), "standard_error": _known(losses.standard_error.tolist())}
    return found if losses.lines is None else {**found, "lines": losses.lines.tolist()}


def _known(values: Any) -> Any:
    """With ``None`` for ``nan``, which JSON does not have."""
    if isinstance(values, list):
        return [_known(value) for value in values]
    return None if math.isnan(values) else values
