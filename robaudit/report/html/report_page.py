"""One report as a page that stands alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from robaudit.report.details import extra, extra_number
from robaudit.report.facts import (
    command,
    header_rows,
    measurement_cells,
    provenance_rows,
    settings_text,
    threat_text,
)
from robaudit.report.html.attacks import accuracies, attack_table, attacked, ensembles, radii
from robaudit.report.html.charts import whisker
from robaudit.report.html.curvature import (
    eigenvalues,
    flatness_picture,
    layer_tables,
    spectrum_picture,
    spread_table,
    sweep_picture,
)
from robaudit.report.html.page import page
from robaudit.report.html.png import data_uri
from robaudit.report.html.surroundings import landscape_pictures
from robaudit.report.html.table import Table, table
from robaudit.report.naming import name_of
from robaudit.report.numbers import number, percent, shown
from robaudit.report.verdicts import verdicts
from robaudit.report.words import (
    DOUBTS_HEADING,
    attack,
    doubts,
    group,
    label,
    not_measured,
    ordered,
    warnings,
)
from robaudit.schema import Measurement, Report


@dataclass(frozen=True)
class Headline:
    """A number that stands large on top."""

    label: str
    value: str
    unit: str
    spread: str
    note: str
    picture: Markup | None = None


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI, with what stands below it."""

    source: str
    caption: str
    confidence: str


@dataclass(frozen=True)
class Example:
    """An adversarial example: the clean image, the perturbation, the adversarial image."""

    index: int
    label: int
    pictures: Sequence[Picture]
    breaks: bool


def to_html(report: Report, folder: Path | None = None) -> str:
    """The report as one self-contained HTML document.

    Args:
        report: what to show.
        folder: where the report lies; ``gallery.npz`` and ``landscape.npz`` there are shown, too.

    Raises:
        DataError: a table in the report, or one of those files, cannot be read.
    """
    examples, amplified = _gallery(folder)
    return page(
        "report.html.j2",
        title=name_of(report.subject),
        report=report,
        threat=threat_text(report.threat),
        headlines=headlines(report),
        verdicts=verdicts(report),
        doubts=doubts(report),
        doubts_heading=DOUBTS_HEADING,
        warnings=warnings(report),
        not_measured=not_measured(report),
        accuracies=accuracies(report),
        radii=radii(report),
        attacks=attack_table(report),
        ensembles=ensembles(report),
        examples=examples,
        amplified=amplified,
        layers=layer_tables(report),
        layer_note=_layer_note(report),
        spectrum=spectrum_picture(report),
        eigenvalues=eigenvalues(report),
        spreads=spread_table(report),
        flatness=flatness_picture(report),
        sweep=sweep_picture(report),
        landscape=landscape_pictures(folder) if folder is not None else [],
        groups=_groups(report),
        settings=_settings(report),
        header=header_rows(report),
        provenance=provenance_rows(report.provenance, report.robaudit)[1:],
        command=command(report.provenance),
    )


def headlines(report: Report) -> list[Headline]:
    """Clean accuracy, the smallest robust accuracy, the robust gap, and WCI, where measured."""
    found = []
    clean, gap, wci = (report.get(name) for name in ("accuracy.clean", "gap.loss", "wci"))
    if clean is not None and clean.value is not None:
        found.append(_headline(clean, label(clean), f"{clean.n} examples"))
    if lowest := next(iter(attacked(report)), None):
        made_here = lowest.name != "accuracy.transfer"
        name = "Robust accuracy" if made_here else label(lowest)
        note = f"{attack(lowest)}: an upper bound" if made_here else "images made elsewhere"
        found.append(_headline(lowest, name, note))
    if gap is not None and gap.value is not None:
        found.append(_headline(gap, "Robust loss gap", "test minus train"))
    if wci is not None and wci.value is not None:
        found.append(_headline(wci, "WCI", "smaller is flatter"))
    return found


def _headline(m: Measurement, name: str, note: str) -> Headline:
    parts = shown(m)
    drawn = None
    if m.unit == "fraction" and m.value is not None and m.interval is not None:
        drawn = whisker(m.value, m.interval.low, m.interval.high, int(m.name != "accuracy.clean"))
    return Headline(name, parts.value, parts.unit, parts.spread, note, drawn)


def _gallery(folder: Path | None) -> tuple[list[Example], str]:
    """The examples, and in words how their perturbations are drawn."""
    if folder is None or not (folder / "gallery.npz").exists():
        return [], ""
    from robaudit.report.gallery import read_gallery

    found = read_gallery(folder / "gallery.npz")
    examples = []
    for at in range(len(found)):
        clean = _said(int(found.clean_class[at]), float(found.clean_confidence[at]))
        fooled = _said(int(found.adversarial_class[at]), float(found.adversarial_confidence[at]))
        pictures = [
            Picture(data_uri(found.clean[at]), *clean),
            Picture(data_uri(found.perturbation[at]), f"{found.factor:g} times", ""),
            Picture(data_uri(found.adversarial[at]), *fooled),
        ]
        breaks = bool(found.adversarial_class[at] != found.label[at])
        examples.append(Example(int(found.index[at]), int(found.label[at]), pictures, breaks))
    thinned = f" One pixel in {found.stride} of a row is shown." if found.stride > 1 else ""
    return examples, (
        f"the perturbation ({found.factor:g} times as large, around grey), and the adversarial "
        f"image.{thinned}"
    )


def _said(label: int, confidence: float) -> tuple[str, str]:
    return f"taken for {label}", percent(confidence) if math.isfinite(confidence) else ""


def _layer_note(report: Report) -> str:
    wci = report.get("wci")
    notes = []
    if wci is not None:
        estimator, bias = extra(wci, "estimator"), extra_number(wci, "bias")
        if isinstance(estimator, str):
            notes.append(f"traces by the {estimator} estimator")
        if bias is not None:
            notes.append(f"bias of WCI from the square roots {number(bias, 2)}")
    return "; ".join(notes)


def _groups(report: Report) -> list[Table]:
    """Every measurement, a table a group."""
    headings, rows = measurement_cells(report)
    kinds = " rr  rr" if len(headings) > 6 else " rr rr"
    groups: dict[str, list[Sequence[str]]] = {}
    for m, cells in rows:
        groups.setdefault(group(m), []).append(cells)
    return [table(name, headings, cells, kinds) for name, cells in groups.items()]


def _settings(report: Report) -> Table | None:
    rows = [(label(m), m.split, settings_text(m)) for m in ordered(report) if m.settings]
    headings = ("Measurement", "Split", "Settings")
    return table("Settings of every measurement", headings, rows, "") if rows else None
