"""Many reports as one sortable table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from markupsafe import Markup

from robaudit.report.facts import data_text, threat_text
from robaudit.report.html.attacks import attacked, stacked
from robaudit.report.html.charts import whisker
from robaudit.report.html.page import page
from robaudit.report.html.table import Cell, table
from robaudit.report.naming import names_of
from robaudit.report.numbers import shown
from robaudit.report.text import plain
from robaudit.report.words import ATTACKS, attack, doubts, not_measured, warnings
from robaudit.schema import Measurement, Report


def index_html(reports: Sequence[Report], links: Sequence[str | None] = ()) -> str:
    """All reports side by side, as one self-contained HTML document.

    Args:
        reports: at least one.
        links: for each report the path of its own page from this one, if it has one; none for all.
    """
    paths = links or [None] * len(reports)
    names = names_of([report.subject for report in reports])
    found = [m for report in reports for m in attacked(report)]
    # A column for each attack as it was set: PGD-20 is not PGD-40.
    attacks = dict.fromkeys(attack(m) for name in ATTACKS for m in found if m.name == name)
    headings = [
        "Checkpoint",
        "Architecture",
        "Clean",
        *attacks,
        "Smallest, 0 to 100 %",
        "WCI",
        "Findings",
    ]
    rows = []
    for report, name, path in zip(reports, names, paths, strict=True):
        accuracies = {attack(m): m for m in attacked(report)}
        smallest = next(iter(accuracies.values()), None)
        findings = len(doubts(report)) + len(warnings(report)) + len(not_measured(report))
        rows.append(
            [
                Cell(link(path, name) if path else name),
                Cell(report.subject.architecture),
                _cell(report.get("accuracy.clean")),
                *(_cell(accuracies.get(one)) for one in attacks),
                _drawn(smallest),
                _cell(report.get("wci")),
                Cell(str(findings) if findings else "none", findings),
            ]
        )
    return page(
        "index.html.j2",
        title=f"{len(reports)} checkpoints",
        table=table(
            "Accuracies in per cent, with their intervals", headings, rows,
            f"  r{'r' * len(attacks)}wrr", sortable=True,
        ),
        about=[
            ("Data", _each(data_text(r.data) for r in reports)),
            ("Threat model", _each(threat_text(r.threat) for r in reports)),
        ],
        mixed=len({(r.data.sha256, r.threat) for r in reports}) > 1,
    )  # fmt: skip


def link(path: str, text: str) -> Markup:
    """A link to a file beside or below the page, never to another scheme or host."""
    return Markup('<a href="./{}">{}</a>').format(
        quote(path, errors="surrogateescape"), plain(text)
    )


def _each(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _cell(m: Measurement | None) -> Cell:
    if m is None:
        return Cell("")
    if m.value is None:
        return Cell(m.status)
    parts = shown(m)
    return Cell(stacked(parts.value, parts.spread), m.value)


def _drawn(m: Measurement | None) -> Cell:
    if m is None or m.value is None or m.interval is None:
        return Cell("")
    return Cell(whisker(m.value, m.interval.low, m.interval.high, 1), m.value)
