"""Drawing by hand: elements, axes and ticks. Colours come from the page's style, by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from robaudit.report.text import plain

WIDTH, HEIGHT = 440.0, 270.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 12.0, 46.0

Tick = tuple[float, str]


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` onto pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + min(1.0, max(0.0, share)) * (self.end - self.start), 2)


def across(low: float, high: float, log: bool = False, left: float = _LEFT) -> Axis:
    """The horizontal axis of a chart."""
    return Axis(low, high, left, WIDTH - _RIGHT, log)


def upward(low: float, high: float, log: bool = False, height: float = HEIGHT) -> Axis:
    """The vertical axis of a chart."""
    return Axis(low, high, height - _BOTTOM, _TOP, log)


def element(name: str, text: object = "", /, **attributes: object) -> Markup:
    """One element; ``class_`` and underscores are written as in XML. All is escaped.

    >>> element("text", "a < b", class_="tick", text_anchor="end")
    Markup('<text class="tick" text-anchor="end">a &lt; b</text>')
    """
    # Markup's own format would take most of the time of a page with many pictures.
    pairs = "".join(
        f' {escape(key.rstrip("_").replace("_", "-"))}="{escape(value)}"'
        for key, value in attributes.items()
    )
    inner = text if isinstance(text, Markup) else escape(plain(text))
    return Markup(f"<{name}{pairs}>{inner}</{name}>")  # noqa: S704


def drawing(title: str, parts: Sequence[Markup], height: float = HEIGHT) -> Markup:
    """An SVG that is one picture to a screen reader, named by its title."""
    return element(
        "svg",
        Markup("").join((element("title", title), *parts)),
        class_="chart",
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        role="img",
    )


def frame(
    x: Axis, y: Axis, x_ticks: Sequence[Tick], y_ticks: Sequence[Tick], x_label: str, y_label: str
) -> list[Markup]:
    """Grid lines, tick labels and what the axes mean."""
    parts = []
    for value, label in y_ticks:
        at = y(value)
        parts.append(element("line", class_="grid", x1=x.start, x2=x.end, y1=at, y2=at))
        parts.append(_label(label, x.start - 8, at + 4, "end"))
    free = -math.inf
    for value, label in x_ticks:
        at = x(value)
        parts.append(element("line", class_="axis", x1=at, x2=at, y1=y.start, y2=y.start + 4))
        room = 4.0 * len(label)  # half of a label's width, at eight units a character
        if at - room > free:
            parts.append(_label(label, at, y.start + 18, "middle"))
            free = at + room
    parts.append(element("line", class_="axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start))
    middle = (x.start + x.end) / 2
    parts.append(_label(x_label, middle, y.start + 38, "middle", "label"))
    if y_label:
        turned = f"translate(14 {(y.start + y.end) / 2:g}) rotate(-90)"
        parts.append(
            element("text", y_label, class_="label", text_anchor="middle", transform=turned)
        )
    return parts


def _label(text: str, x: float, y: float, anchor: str, class_: str = "tick") -> Markup:
    return element("text", text, class_=class_, x=f"{x:g}", y=f"{y:g}", text_anchor=anchor)


def text_at(text: str, x: float, y: float, anchor: str = "start") -> Markup:
    """A label anywhere in a chart."""
    return _label(text, x, y, anchor, "label")


def ticks(low: float, high: float, about: int = 5) -> list[Tick]:
    """Round numbers between two: multiples of 1, 2 or 5 times a power of ten.

    >>> [label for _, label in ticks(0, 1)]
    ['0', '0.2', '0.4', '0.6', '0.8', '1']
    """
    if not high > low:
        return [(low, f"{low:.3g}")]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = min(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(place * step, f"{place * step:.6g}") for place in range(first, last + 1)]


def decades(low: float, high: float, most: int = 6) -> list[Tick]:
    """Powers of ten between two positive numbers, every so many where there are too many."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / most))
    found = [(10.0**power, _power(power)) for power in range(first, last + 1, every)]
    return found or [(low, f"{low:.2g}"), (high, f"{high:.2g}")]


def _power(exponent: int) -> str:
    if exponent in (0, 1):
        return str(10**exponent)
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}"
