"""One report as a page that stands alone."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from robaudit.report.class_tables import class_tables, confusion_table
from robaudit.report.corruptions import corruption_tables
from robaudit.report.details import attacked, number_list
from robaudit.report.facts import (
    command,
    header_rows,
    provenance_rows,
    threat_text,
)
from robaudit.report.headline import ends, headline
from robaudit.report.html.attacks import (
    attack_table,
    ensembles,
)
from robaudit.report.html.page import page
from robaudit.report.landscape_npz import FILE_NAME, read_npz
from robaudit.report.naming import name_of
from robaudit.report.numbers import Shown, number, percent, shown
from robaudit.report.pictures.accuracies import accuracies, radii
from robaudit.report.pictures.classes import classes
from robaudit.report.pictures.corruptions import corruptions
from robaudit.report.pictures.curvature import curvature
from robaudit.report.pictures.drawing import inline
from robaudit.report.pictures.flatness import flatness, sweep
from robaudit.report.pictures.landscape import contour, curves
from robaudit.report.pictures.reliability import reliability
from robaudit.report.report_tables import (
    layer_tables,
    measurement_table,
    radii_table,
    settings_tables,
    spread_tables,
)
from robaudit.report.table import Cell, Column, Table
from robaudit.report.union_table import union_table
from robaudit.report.verdicts import verdicts
from robaudit.report.words import (
    DOUBTS_HEADING,
    assumptions,
    attack,
    doubts,
    group,
    has_splits,
    label,
    meaning,
    not_measured,
    ordered,
    warnings,
)
from robaudit.schema import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from robaudit.report.gallery import Gallery, Pixels

# What the numbers on top of the page are called, where it is not their label.
_SHORT = {"gap.loss": "Robust loss gap", "wci": "WCI"}
_CERTIFIED = "from the share that is certified to the share that no attack broke"


def to_html(report: Report, folder: Path | None = None) -> str:
    """The report as one self-contained HTML document.

    Args:
        report: what to show.
        folder: where the report lies; ``gallery.npz`` and ``landscape.npz`` there are shown, too.

    Raises:
        DataError: a table in the report, or one of those files, cannot be read.
    """
    splits = ("test", "train") if has_splits(report) else (None,)
    return page(
        "report.html.j2",
        title=name_of(report.subject),
        report=report,
        threat=threat_text(report.threat),
        headline=headline(report),
        numbers=numbers(report),
        assumptions=assumptions(report.subject),
        verdicts=verdicts(report),
        doubts=doubts(report),
        doubts_heading=DOUBTS_HEADING,
        warnings=warnings(report),
        not_measured=not_measured(report),
        radii=radii_table(report),
        union=union_table(report),
        classes=[table for split in splits for table in class_tables(report, split)],
        confusion=confusion_table(report),
        attacks=attack_table(report),
        ensembles=ensembles(report),
        gallery=_gallery(folder),
        data_uri=data_uri,
        confidence=_confidence,
        corruptions=corruption_tables(report),
        layers=[table for split in splits for table in layer_tables(report, split)],
        eigenvalues=_eigenvalues(report),
        spreads=spread_tables(report),
        pictures=_pictures(report, folder),
        groups=_groups(report),
        settings=settings_tables(report),
        header=header_rows(report),
        provenance=provenance_rows(report.provenance, report.robaudit)[1:],
        command=command(report.provenance),
    )


@dataclass(frozen=True)
class Number:
    """A number on top of the page: its name and a note, and what the name means."""

    name: str
    shown: Shown
    note: str
    about: str = ""


def numbers(report: Report) -> list[Number]:
    """The numbers on top of the page, as far as measured, the most important first.

    They are the smallest robust accuracy, or both ends of it where it is certified; clean accuracy,
    that under corruptions, the robust gap, and WCI.
    """
    both, lowest = ends(report), next(iter(attacked(report)), None)
    found = []
    if both is not None:
        low, high = f"{100 * both.low:.1f}", f"{100 * both.high:.1f}"
        size = Shown(low if both.exact else f"{low}-{high}", f"of {both.n:,} images", "%")
        found.append(Number("Robust accuracy", size, f"certified; {both.by}", _CERTIFIED))
    if lowest is not None and (both is None or lowest.n != both.n):
        made_here = lowest.name != "accuracy.transfer"
        name = "Robust accuracy" if made_here else label(lowest)
        note = f"{attack(lowest)}: an upper bound" if made_here else "images made elsewhere"
        found.append(Number(name, shown(lowest), note, meaning(lowest.name)))
    notes = {
        "accuracy.clean": "{n} examples",
        "accuracy.corruptions": "{n} images",
        "accuracy.certified": "a lower bound, by proof",
        "gap.loss": "test minus train",
        "wci": "smaller is flatter",
    }
    for name, note in notes.items():
        m = report.get(name)
        if m is None or m.value is None or (name == "accuracy.certified" and both is not None):
            continue
        short = _SHORT.get(name) or label(m)
        found.append(Number(short, shown(m), note.format(n=m.n), meaning(name)))
    return found


def _pictures(report: Report, folder: Path | None) -> dict[str, Markup]:
    """The figures by the names that the template has for them; empty where nothing was measured."""
    figures = {
        "accuracies": (accuracies(report), "Accuracies and their intervals"),
        "radii": (radii(report), "Accuracy within each radius"),
        "corruptions": (corruptions(report), "Accuracy under each corruption at each severity"),
        "layers": (curvature(report, spectrum=False), "Contribution of each layer to WCI"),
        "spectrum": (
            curvature(report, layers=False),
            "Spectral density of the Hessian of the robust loss",
        ),
        "classes": (classes(report), "Clean and robust accuracy of each class"),
        "flatness": (flatness(report), "Robust loss before and after weight changes"),
        "sweep": (sweep(report), "Flatness over the size of the weight change"),
        "reliability": (reliability(report), "Accuracy over confidence"),
        "surroundings": (_landscape(folder), "Loss landscape"),
    }
    return {name: inline(figure, name, title) for name, (figure, title) in figures.items()}


def _landscape(folder: Path | None) -> Figure | None:
    if folder is None or not (folder / FILE_NAME).exists():
        return None
    found = read_npz(folder / FILE_NAME)
    return curves(found) if len(found.places) == 1 else contour(found)


def _gallery(folder: Path | None) -> Gallery | None:
    if folder is None or not (folder / "gallery.npz").exists():
        return None
    from robaudit.report.gallery import read_gallery

    return read_gallery(folder / "gallery.npz")


def data_uri(pixels: Pixels) -> str:
    """An ``(h, w)`` or ``(h, w, 3)`` uint8 image as ``data:image/png;base64,...``."""
    from PIL import Image as Png

    file = io.BytesIO()
    Png.fromarray(pixels).save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _confidence(value: float) -> str:
    return percent(value) if math.isfinite(value) else ""


def _eigenvalues(report: Report) -> Table | None:
    """The largest eigenvalues with their residuals."""
    largest = report.get("hessian.largest")
    values = number_list(largest.details.get("eigenvalues")) if largest else None
    if largest is None or not values:
        return None
    residuals = number_list(largest.details.get("residuals")) or []
    rows = [
        [
            Cell(str(at + 1)),
            Cell(number(value)),
            Cell(number(residuals[at], 2) if at < len(residuals) else ""),
        ]
        for at, value in enumerate(values)
    ]
    return Table([Column(), Column("Eigenvalue"), Column("Residual")], rows, "Largest eigenvalues")


def _groups(report: Report) -> list[Table]:
    """Every measurement, a table a group."""
    groups = dict.fromkeys(group(m) for m in ordered(report))
    return [measurement_table(report, only=name) for name in groups]
