"""The loss landscape that lies in a report's folder, drawn again from its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from robaudit.report.html.charts import Point, Series, lines, plane
from robaudit.report.html.svg import across, upward
from robaudit.report.landscape import Lines, Losses, Plane, loss_name
from robaudit.report.landscape_npz import FILE_NAME, read_npz
from robaudit.report.numbers import number
from robaudit.report.text import model_names

if TYPE_CHECKING:
    from robaudit.report.gallery import Pixels
    from robaudit.report.landscape import Array

# Dark blue over grey to yellow, light steadily rising, so that it also prints in grey.
_COLOURS = ((0, 32, 77), (87, 92, 109), (124, 123, 120), (180, 166, 108), (255, 234, 70))


def landscape_pictures(folder: Path) -> list[tuple[str, Markup]]:
    """Captions and pictures; none where the folder holds no landscape.

    Raises:
        DataError: its file holds something else.
    """
    if not (folder / FILE_NAME).exists():
        return []
    found = read_npz(folder / FILE_NAME)
    if isinstance(found, Lines):
        return [_lines(found)]
    return [_plane(found, kind, losses) for kind, losses in found.model.losses.items()]


def _lines(found: Lines) -> tuple[str, Markup]:
    series = []
    for model, name in zip(found.models, found.names, strict=True):
        whose = f"{name}, " if len(found.models) > 1 else ""
        for kind, losses in model.losses.items():
            series.append(Series(f"{whose}{loss_name(kind)}", _points(found.s, losses)))
    caption = "Bars: 95 % intervals over the examples"
    if found.ends:
        caption += f"; {_checkpoints([(f'{s:g}', source) for s, source in found.ends])}"
    return caption, lines("Loss landscape", series, found.label, "loss, nats")


def _points(s: Array, losses: Losses) -> list[Point]:
    points = []
    for at, mean, error in zip(
        s.tolist(), losses.mean.tolist(), losses.standard_error.tolist(), strict=True
    ):
        half = 0.0 if math.isnan(error) else 1.96 * error
        points.append(Point(at, mean, mean - half, mean + half))
    return points


def _plane(found: Plane, kind: str, losses: Losses) -> tuple[str, Markup]:
    low, high = float(losses.mean.min()), float(losses.mean.max())
    s = across(*_edges(found.s))
    t = upward(*_edges(found.t), height=440)
    caption = (
        f"{loss_name(kind).capitalize()}: from {number(low, 3)} nats (dark) to {number(high, 3)} "
        f"(light{', on a log scale' if _in_decades(low, high) else ''})"
    )
    if found.corners:
        marks = [(a, b) for a, b, _ in found.corners]
        listed = _checkpoints([(f"({a:.3g}, {b:.3g})", source) for a, b, source in found.corners])
        caption += f"; crosses: {listed}"
    else:
        marks = [(0.0, 0.0)]
        caption += "; the cross is the network itself"
    pixels = _coloured(losses.mean[::-1], low, high)
    title = f"Landscape of the {loss_name(kind)}"
    return caption, plane(title, s, t, pixels, found.labels, marks)


def _checkpoints(places: Sequence[tuple[str, str]]) -> str:
    names = model_names([source for _, source in places])
    return ", ".join(f"{name} at {at}" for (at, _), name in zip(places, names, strict=True))


def _edges(places: Array) -> tuple[float, float]:
    """Half a step beyond the first and last place, which are centres of pixels."""
    low, high = float(places.min()), float(places.max())
    half = (high - low) / (2 * (len(places) - 1)) if len(places) > 1 else 0.5
    return low - half, high + half


def _in_decades(low: float, high: float) -> bool:
    """Whether colours go by the logarithm: a single high corner would darken all the rest."""
    return high > 10 * low > 0


def _coloured(values: Array, low: float, high: float) -> Pixels:
    import numpy as np

    if _in_decades(low, high):
        values, low, high = np.log(values), math.log(low), math.log(high)
    shares = (values - low) / ((high - low) or 1.0)
    stops = np.linspace(0, 1, len(_COLOURS))
    bands = [np.interp(shares, stops, [colour[band] for colour in _COLOURS]) for band in range(3)]
    return np.asarray(np.rint(np.stack(bands, -1)), np.uint8)
