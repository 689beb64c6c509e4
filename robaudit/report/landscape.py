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
class PathPoint:
    """A checkpoint of a run, in the plane of the run's trajectory.

    Attributes:
        label: its epoch, or what else places it in the run.
        off_plane: its distance from the plane, as a share of its distance from the last checkpoint.
    """

    label: str
    off_plane: float


@dataclass(frozen=True)
class Landscape:
    """Losses at places along one axis, of one model or several; or of one model over two axes.

    Attributes:
        settings: everything that the numbers depend on, as in JSON.
        labels: of the axes.
        places: along each axis: ``s``, or ``s`` and ``t``.
        checkpoints: on a line between two, the plane through three, or of a path: their places and
            sources.
        path: the same checkpoints in the order of training, where the plane is that of their path.
    """

    settings: dict[str, Any]
    labels: tuple[str, ...]
    places: tuple[Array, ...]
    models: tuple[Model, ...]
    checkpoints: tuple[tuple[tuple[float, ...], str], ...] = ()
    path: tuple[PathPoint, ...] = ()

    @property
    def names(self) -> list[str]:
        """A short name for each model; between checkpoints, the names of all of them in one.

        Those of networks that were guessed say so.
        """
        ends = [source for _, source in self.checkpoints]
        sources = ends or [model.source for model in self.models]
        assumed = self.settings.get("assumed", ())
        found = [
            marked(name, source in assumed)
            for name, source in zip(model_names(sources), sources, strict=True)
        ]
        if self.path:
            found = [found[0], found[-1]]
        return [" - ".join(found)] if ends else found


def loss_name(kind: str) -> str:
    """The title of a panel for a kind of loss."""
    return kind if kind == "loss" else f"{kind} loss"


def landscape_object(landscape: Landscape) -> dict[str, Any]:
    """The landscape as JSON has it: settings, places, and losses by model."""
    return {
        **landscape.settings,
        **{axis: places.tolist() for axis, places in zip("st", landscape.places, strict=False)},
        "models": [
            {"source": model.source, **{k: _object(v) for k, v in model.losses.items()}}
            for model in landscape.models
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
