"""Many reports as one sortable table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from markupsafe import Markup

from robaudit.report.curve import Curve
from robaudit.report.curve_axis import axis_of, shown_place
from robaudit.report.details import attacked
from robaudit.report.facts import data_text, threat_text
from robaudit.report.html.page import brief, page
from robaudit.report.naming import names_of
from robaudit.report.pictures.accuracies import accuracy_row, accuracy_rows
from robaudit.report.pictures.curves import ACCURACY, FLATNESS, WCI, course
from robaudit.report.pictures.drawing import inline
from robaudit.report.pictures.intervals import MOST_ROWS
from robaudit.report.table import Cell, Column, Table, measured, names, text
from robaudit.report.text import plain
from robaudit.report.wci_curve import wci_curve
from robaudit.report.words import attack, attack_names, doubts, not_measured, warnings
from robaudit.schema import Measurement, Report


def index_html(reports: Sequence[Report], links: Sequence[str | None] = ()) -> str:
    """All reports side by side, as one self-contained HTML document.

    Checkpoints that a number tells apart, such as the epochs of a run, stand in its order; of one
    network and threat model they are drawn as a curve.

    Args:
        reports: at least one.
        links: for each report the path of its page from this one, ``None`` where it has no page;
            may be left out when none has.
    """
    paths = links or [None] * len(reports)
    curve = wci_curve(reports)
    numbered = curve.axis.by != "order"
    if numbered:
        places = axis_of(
            [report.subject.source for report in reports],
            [report.subject.epoch for report in reports],
        ).places
        order = sorted(range(len(reports)), key=lambda at: places[at])
        reports, paths = [reports[at] for at in order], [paths[at] for at in order]
    found = [m for report in reports for m in attacked(report)]
    # A column for each attack as it was set: PGD-20 is not PGD-40.
    attacks = list(
        dict.fromkeys(attack(m) for name in attack_names() for m in found if m.name == name)
    )
    proven = [report.get("accuracy.certified") for report in reports]
    certified = ("Certified",) if any(proven) else ()
    place = [Column(curve.axis.name.capitalize())] if numbered else []
    columns = [names("Checkpoint"), *place, text("Architecture")]
    columns += [Column(name) for name in (*attacks, *certified, "Clean", "WCI", "Findings")]
    rows, drawn = [], []
    for report, name, path, at in zip(
        reports,
        names_of([report.subject for report in reports]),
        paths,
        curve.axis.places,
        strict=True,
    ):
        accuracies = {attack(m): m for m in attacked(report)}
        findings = len(doubts(report)) + len(warnings(report)) + len(not_measured(report))
        rows.append(
            [
                Cell(link(path, name) if path else name),
                *(Cell(shown_place(at), value=at) for _ in place),
                Cell(brief(report.subject.architecture)),
                *(_cell(accuracies.get(one)) for one in attacks),
                *(_cell(report.get("accuracy.certified")) for _ in certified),
                _cell(report.get("accuracy.clean")),
                _cell(report.get("wci")),
                Cell(str(findings) if findings else "none", value=findings),
            ]
        )
        smallest = next(iter(accuracies.values()), None)
        if (row := accuracy_row(smallest, name)) is not None:
            drawn.append(row)
    unlike = len({(r.data.sha256, r.threat) for r in reports}) > 1
    courses = _courses(curve, reports) if curve.connected and not unlike else []
    left_out = len(drawn) - MOST_ROWS
    return page(
        "index.html.j2",
        title=f"{len(reports)} checkpoints",
        table=Table(columns, rows, "Accuracies in per cent, with their intervals"),
        picture=inline(accuracy_rows(drawn), "smallest", "Smallest robust accuracy"),
        axis=curve.axis.name,
        courses=courses,
        left_out=f"; the other {left_out} are in the table" if left_out > 0 else "",
        about=[
            ("Data", _distinct(data_text(r.data) for r in reports)),
            ("Threat model", _distinct(threat_text(r.threat) for r in reports)),
        ],
        mixed=unlike,
    )


def _courses(curve: Curve, reports: Sequence[Report]) -> list[Markup]:
    """The measures over the checkpoints; flatness, where measured, in a picture of its own."""
    name = curve.axis.name
    found = [inline(course(curve, (ACCURACY, *WCI)), "course", f"Measures over the {name}")]
    if any(m.name.startswith("flatness.") for report in reports for m in report.measurements):
        from robaudit.report.flatness_curve import flatness_curve  # which needs scipy

        over = course(flatness_curve(reports), FLATNESS)
        found.append(inline(over, "flatness", f"Flatness over the {name}"))
    return [picture for picture in found if picture]


def link(path: str, name: str) -> Markup:
    """A link to a file beside or below the page, never to another scheme or host."""
    return Markup('<a href="./{}">{}</a>').format(
        quote(path, errors="surrogateescape"), plain(name)
    )


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _cell(m: Measurement | None) -> Cell:
    return Cell() if m is None else measured(m)
