"""The pictures of the pages, as SVG with text as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

from robaudit.report.html.png import data_uri
from robaudit.report.html.svg import (
    Axis,
    Tick,
    across,
    decades,
    drawing,
    element,
    frame,
    text_at,
    ticks,
    upward,
)

if TYPE_CHECKING:
    from robaudit.report.gallery import Pixels

_SERIES = "abcde"
_DECADES = 6


@dataclass(frozen=True)
class Point:
    """A value with its error bar; both ends are the value where there is none."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """A line and what it is."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Strip:
    """One row of dots on a common axis: single outcomes, and a value with its error bar."""

    name: str
    value: float
    low: float
    high: float
    single: Sequence[float] = ()


def whisker(value: float, low: float, high: float, series: int = 0) -> Markup:
    """A share between 0 and 1 with its interval, as wide as the table's cell."""
    return _spark([*_quarters(), *_bar_and_mark(_SHARES, value, low, high, series)])


_SHARES = Axis(0, 1, 5, 255)


@cache
def _quarters() -> list[Markup]:
    places = [_SHARES(at) for at in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return [_line("grid", place, place, 3, 15) for place in places]


def threshold(value: float, low: float, high: float, limit: float, share: bool) -> Markup:
    """A value with its interval beside the threshold it is held against.

    Args:
        share: the scale is from 0 to 1, else as wide as all that is drawn.
    """
    ends = (0.0, 1.0) if share else _with_room(min(low, limit), max(high, limit))
    x = Axis(*ends, 5, 255)
    rule = _line("limit", x(limit), x(limit), 1, 17)
    return _spark([*_bar_and_mark(x, value, low, high, 0), rule])


def _bar_and_mark(x: Axis, value: float, low: float, high: float, series: int) -> list[Markup]:
    marks = (
        _line("whisker", x(low), x(high), 9, 9),
        *(_line("whisker", x(end), x(end), 5, 13) for end in (low, high)),
        element("circle", class_="mark", cx=x(value), cy=9, r=3.6),
    )
    rail = _line("rail", x.start, x.end, 9, 9)
    return [rail, element("g", Markup("").join(marks), class_=_class(series))]


def _spark(parts: Sequence[Markup]) -> Markup:
    inner = Markup("").join(parts)
    return element(
        "svg", inner, class_="spark", viewBox="0 0 260 18", aria_hidden="true",
        preserveAspectRatio="xMinYMid",
    )  # fmt: skip


def bar(share: float) -> Markup:
    """A share between 0 and 1 as a bar."""
    width = round(100 * min(1.0, max(0.0, share)), 2)
    inner = element("rect", class_="rail", x=0, y=0, width=100, height=10) + element(
        "rect", class_="fill", x=0, y=0, width=width, height=10
    )
    return element(
        "svg", inner, class_="bar", viewBox="0 0 100 10", preserveAspectRatio="none",
        aria_hidden="true",
    )  # fmt: skip


def lines(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[Tick] | None = None,
    log_x: bool = False,
) -> Markup:
    """Lines with error bars, told apart by colour, dash and marker, with their names below."""
    points = [point for one in series for point in one.points]
    low_x, high_x = min(point.x for point in points), max(point.x for point in points)
    low, high = y_range or _with_room(
        min(point.low for point in points), max(point.high for point in points)
    )
    x, y = across(low_x, high_x, log_x), upward(low, high)
    shown = x_ticks or (decades(low_x, high_x) if log_x else ticks(low_x, high_x))
    parts = frame(x, y, shown, ticks(low, high), x_label, y_label)
    for place, one in enumerate(series):
        parts.append(_drawn(one, place, x, y, 3.0 * (place - (len(series) - 1) / 2)))
    names = [one.name for one in series] if len(series) > 1 else []
    return _figure(drawing(title, parts), names)


def _drawn(one: Series, place: int, x: Axis, y: Axis, aside: float) -> Markup:
    """A line; its error bars stand a little ``aside`` of those of the other lines."""
    path = " ".join(f"{x(point.x)},{y(point.y)}" for point in one.points)
    parts = [element("polyline", class_="line", points=path)]
    for point in one.points:
        at, value = x(point.x) + aside, y(point.y)
        if point.high > point.low:
            low, high = y(point.low), y(point.high)
            parts.append(_line("whisker", at, at, low, high))
            parts += [_line("whisker", at - 3, at + 3, end, end) for end in (low, high)]
        if len(one.points) <= 25:
            parts.append(_marker(place, at, value))
    return element("g", Markup("").join(parts), class_=_class(place))


def strips(title: str, rows: Sequence[Strip], x_label: str) -> Markup:
    """Rows of dots on one axis, each under its name."""
    ends = [end for row in rows for end in (row.low, row.high, *row.single)]
    low, high = _with_room(min(ends), max(ends))
    height = 40.0 * len(rows) + 58
    x, y = across(low, high, left=14.0), upward(0, len(rows), height=height)
    parts = frame(x, y, ticks(low, high), [], x_label, "")
    for place, row in enumerate(rows):
        base = 40.0 * place + 36
        parts.append(text_at(row.name, 14, base - 13))
        dots = [element("circle", class_="dot", cx=x(one), cy=base, r=4) for one in row.single]
        marks = [_line("rail", x.start, x.end, base, base), *dots]
        if row.high > row.low:
            marks.append(_line("whisker", x(row.low), x(row.high), base, base))
            marks += [
                _line("whisker", x(end), x(end), base - 5, base + 5) for end in (row.low, row.high)
            ]
        marks.append(_marker(0, x(row.value), base))
        parts.append(element("g", Markup("").join(marks), class_=_class(0)))
    return _figure(drawing(title, parts, height), [])


def spectrum(
    title: str,
    grid: Sequence[float],
    density: Sequence[float],
    errors: Sequence[float] | None,
    extremes: Sequence[float],
) -> Markup:
    """A density on a log scale over six decades, its standard error, the extreme eigenvalues."""
    peak = max(density)
    if not peak > 0:
        return Markup("")
    floor = peak * 10.0**-_DECADES
    ends = [*grid, *extremes]
    x, y = across(min(ends), max(ends)), upward(floor, 2 * peak, log=True)
    parts = frame(
        x, y, ticks(x.low, x.high), decades(floor, 2 * peak), "eigenvalue of the Hessian", "density"
    )
    marks = []
    if errors is not None:
        above = [(at, v + e) for at, v, e in zip(grid, density, errors, strict=True)]
        below = [(at, v - e) for at, v, e in zip(grid, density, errors, strict=True)]
        marks.append(element("polygon", class_="band", points=_path(above + below[::-1], x, y)))
    line = _path(list(zip(grid, density, strict=True)), x, y)
    marks.append(element("polyline", class_="line", points=line))
    parts.append(element("g", Markup("").join(marks), class_=_class(0)))
    rules = [_line("line", x(at), x(at), y.start, y.end) for at in extremes]
    parts.append(element("g", Markup("").join(rules), class_=_class(1)))
    return _figure(drawing(title, parts), ["density", "extreme eigenvalues"][: 2 if rules else 1])


def plane(
    title: str,
    s: Axis,
    t: Axis,
    pixels: Pixels,
    labels: tuple[str, str],
    marks: Sequence[tuple[float, float]],
) -> Markup:
    """A picture of values over two axes, with crosses at ``marks``."""
    corner = {"x": s.start, "y": t.end, "width": s.end - s.start, "height": t.start - t.end}
    picture = element("image", href=data_uri(pixels), preserveAspectRatio="none", **corner)
    crosses = [
        element("path", class_="cross", d=f"M{s(a) - 6:g} {t(b):g}h12m-6 -6v12") for a, b in marks
    ]
    axes = frame(s, t, ticks(s.low, s.high), ticks(t.low, t.high), *labels)
    return _figure(drawing(title, [*axes, picture, *crosses], t.start + 46), [])


def _figure(picture: Markup, names: Sequence[str]) -> Markup:
    keys = Markup("").join(
        element("span", _key(place) + element("span", name), class_="key")
        for place, name in enumerate(names)
    )
    caption = element("figcaption", keys) if names else Markup("")
    return element("figure", picture + caption, class_="chart")


def _key(place: int) -> Markup:
    marks = element("polyline", class_="line", points="0,7 28,7") + _marker(place, 14, 7)
    inner = element("g", marks, class_=_class(place))
    return element("svg", inner, class_="swatch", viewBox="0 0 28 14", aria_hidden="true")


def _class(place: int) -> str:
    return f"series-{_SERIES[place % len(_SERIES)]}"


def _line(class_: str, x1: float, x2: float, y1: float, y2: float) -> Markup:
    return element("line", class_=class_, x1=f"{x1:g}", x2=f"{x2:g}", y1=f"{y1:g}", y2=f"{y2:g}")


def _marker(place: int, x: float, y: float) -> Markup:
    match place % len(_SERIES):
        case 0:
            return element("circle", class_="mark", cx=f"{x:g}", cy=f"{y:g}", r=3.6)
        case 1:
            path = f"M{x - 3.4:g} {y - 3.4:g}h6.8v6.8h-6.8z"
        case 2:
            path = f"M{x:g} {y - 4.4:g}l4.4 7.6h-8.8z"
        case 3:
            path = f"M{x:g} {y - 4.8:g}l4.8 4.8l-4.8 4.8l-4.8 -4.8z"
        case _:
            path = f"M{x:g} {y + 4.4:g}l4.4 -7.6h-8.8z"
    return element("path", class_="mark", d=path)


def _path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    return " ".join(f"{x(at)},{y(value)}" for at, value in points)


def _with_room(low: float, high: float) -> tuple[float, float]:
    """A range a little wider, so that no mark stands on the frame."""
    room = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    return low - room, high + room
