"""What all pictures share: size, fonts and colours, and how a figure becomes a file or an element.

A file is SVG or PNG as matplotlib writes it. Inside a page a figure is an ``<svg>`` element whose
colours are CSS variables and whose styles are attributes, as the Content-Security-Policy of the
pages admits no ``style`` attribute.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from xml.etree import ElementTree

from markupsafe import Markup

from robaudit.report.pictures.palette import INK, LIGHT, RULE, SOFT
from robaudit.report.text import plain

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike

WIDTH: Final = 3.5  # inches: one column of a two-column page
SMALL: Final = 7  # points: notes, legends, tick labels
_STYLE: Final = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial"],  # the first comes with matplotlib
    "font.size": 8,
    "axes.titlesize": SMALL,
    "legend.fontsize": SMALL,
    "legend.columnspacing": 1.2,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "grid.color": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a "$" in a name is a dollar sign
    "svg.fonttype": "none",  # text in an SVG can be searched and read aloud
    "svg.hashsalt": "robaudit",  # the same figure has the same ids
}
_NO_METADATA: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_VARIABLES: Final = {
    colour: f"var(--{name})" for name, colour in LIGHT.items() if name not in ("paper", "panel")
}
_NUMBER = re.compile(r"-?\d+\.\d+")


@contextmanager
def style() -> Iterator[None]:
    """Draw with robaudit's fonts and colours, whatever the user's matplotlibrc says.

    Works in a ``with`` statement and as a decorator.
    """
    from matplotlib import style as styles

    with styles.context(["default", _STYLE]):
        yield


def new_figure(height: float) -> Figure:
    """An empty figure :data:`WIDTH` inches wide, without any global state of matplotlib.

    Args:
        height: in inches.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def line(
    axis: Axes,
    x: ArrayLike,
    y: ArrayLike,
    band: tuple[ArrayLike, ArrayLike] | None,
    look: tuple[str, str, str],
    label: str | None,
) -> None:
    """Draw a line and the band around it.

    Args:
        x: where the points are.
        y: their values; ``nan`` leaves a gap.
        band: the lower and the upper ends; ``None`` for no band.
        look: colour, dash and marker, as in :data:`~robaudit.report.pictures.palette.LINES`; an
            empty dash leaves markers alone.
        label: in the legend; ``None`` for none.
    """
    colour, dash, marker = look
    if band is not None:
        axis.fill_between(x, *band, color=colour, alpha=0.2, linewidth=0)
    # A marker on an axis is drawn whole; curves without markers may reach beyond the axes.
    whole: dict[str, Any] = {"clip_on": False, "zorder": 3} if marker else {}
    axis.plot(x, y, color=colour, linestyle=dash, marker=marker, label=label, **whole)


def legend_above(figure: Figure, named: dict[str, Artist]) -> None:
    """Put a legend of these artists, by their labels, above all axes."""
    columns = 3 if len(named) <= 3 else 2
    figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=columns)


def error_band() -> dict[str, Artist]:
    """What a legend says of bands of one standard error."""
    from matplotlib.patches import Patch

    return {"± one s.e.": Patch(color=SOFT, alpha=0.3, linewidth=0)}


def short(text: object, most: int) -> str:
    """Text from a file as one visible line, with its end cut off beyond ``most`` characters."""
    line = plain(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def logarithmic(axis: Axes, which: Literal["x", "y"]) -> None:
    """Give ``axis`` a logarithmic scale; one shorter than a power of ten is labelled throughout."""
    from matplotlib.ticker import NullFormatter

    axis.set(**{f"{which}scale": "log"})
    own = axis.xaxis if which == "x" else axis.yaxis
    low, high = own.get_view_interval()
    own.set_major_formatter("{x:g}")
    own.set_minor_formatter("{x:g}" if high < 10 * low else NullFormatter())


def save(figure: Figure | None, stem: Path, title: object = "") -> list[Path]:
    """Write ``stem.svg`` and ``stem.png``, the same bytes each time.

    Args:
        figure: what to write; nothing is written for ``None``.
        stem: the path without its suffix.
        title: text above the whole figure.

    Returns:
        The paths of the files.
    """
    if figure is None:
        return []
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("svg", "png")]
    with style():
        if title:
            figure.suptitle(short(title, 50), fontsize=8)
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=200)
    return paths


def inline(figure: Figure | None, name: str, title: str) -> Markup:
    """The figure as an ``<svg>`` element for an HTML page, or ``""`` for ``None``.

    Args:
        figure: what to draw.
        name: what ids in the element are made from; each figure of a page needs another.
        title: what a screen reader says of the picture.
    """
    import matplotlib

    if figure is None:
        return Markup("")
    written = io.BytesIO()
    with style(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(written, format="svg", transparent=True, metadata=_NO_METADATA)
    root = ElementTree.fromstring(written.getvalue())  # noqa: S314, matplotlib wrote it
    _tidy(root)
    root.attrib = {
        "class": "chart",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "stroke-linejoin": "round",
    }
    heading = ElementTree.Element("title")
    heading.text = plain(title)
    root.insert(0, heading)
    # ElementTree has escaped all text, and matplotlib's elements are harmless.
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704


def _tidy(element: ElementTree.Element) -> None:
    """Drop namespaces, metadata and needless digits; turn styles into attributes."""
    element.tag = element.tag.rpartition("}")[2]
    element.tail = None
    if not (element.text or "").strip():
        element.text = None
    attributes: dict[str, str] = {}
    for key, value in element.attrib.items():
        if key == "style":
            pairs = (pair.partition(":") for pair in value.split(";") if pair.strip())
            attributes |= {name.strip(): setting.strip() for name, _, setting in pairs}
        elif value.startswith("data:"):
            attributes["href"] = "".join(value.split())
        else:
            rounded = _NUMBER.sub(lambda found: f"{float(found[0]):z.2f}", value)
            attributes[key.rpartition("}")[2]] = " ".join(rounded.split())
    attributes.pop("font-family", None)  # the page's own
    if font := attributes.pop("font", None):
        attributes["font-size"] = font[: font.index("px") + 2].rpartition(" ")[2]
    for key in ("fill", "stroke"):
        if key in attributes:
            attributes[key] = _VARIABLES.get(attributes[key].lower(), attributes[key])
    if element.tag == "g":
        attributes.pop("id", None)  # nothing refers to it
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    element.attrib = attributes
    for child in list(element):
        if child.tag.endswith(("}metadata", "}style")):
            element.remove(child)
        else:
            _tidy(child)
