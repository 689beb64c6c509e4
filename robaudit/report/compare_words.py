"""A comparison's numbers and sentences, as every view of it shows them."""

from __future__ import annotations

from dataclasses import dataclass

from robaudit.report.compare import Comparison, Difference
from robaudit.report.facts import provenance_rows, subject_rows, threat_text
from robaudit.report.numbers import shown
from robaudit.report.text import plain
from robaudit.report.words import doubts
from robaudit.schema import Measurement, Report

_FEW = 8


@dataclass(frozen=True)
class Row:
    """One line of the table: the two values, their difference, its test, the examples changed."""

    label: str
    first: str
    second: str
    difference: str
    p_value: str
    changed: str


def headings(comparison: Comparison) -> Row:
    """The table's first line."""
    one, other = comparison.names
    return Row("Measurement", one, other, "Difference", "p", "Changed")


def rows(comparison: Comparison) -> list[Row]:
    """One line a measurement."""
    splits = any(
        row.split not in (comparison.first.data.split, "gap") for row in comparison.differences
    )
    return [
        Row(
            _label(row, splits),
            _value(row.first),
            _value(row.second),
            _difference(row),
            "" if row.holm is None else p_text(row.holm),
            ""
            if row.only_first is None or row.only_second is None
            else f"-{len(row.only_first)} +{len(row.only_second)}",
        )
        for row in comparison.differences
    ]


def changed(comparison: Comparison) -> list[str]:
    """Which examples one of them alone got right, a few of each."""
    one, other = comparison.names
    lines = []
    for row in comparison.differences:
        parts = [
            f"{len(places):,} only by {name} ({_few(places)})"
            for name, places in ((one, row.only_first), (other, row.only_second))
            if places
        ]
        if parts:
            split = "" if row.split == comparison.first.data.split else f" ({plain(row.split)})"
            lines.append(f"{row.label}{split}: right {', '.join(parts)}.")
    return lines


def notes(comparison: Comparison) -> list[str]:
    """What to bear in mind, and why what is not compared is not, each reason once."""
    labels: dict[str, list[str]] = {}
    for row in comparison.differences:
        if row.reason is not None:
            labels.setdefault(row.reason, []).append(row.label)
    reasons = [
        f"Not comparable: {', '.join(dict.fromkeys(which))}: {reason}."
        for reason, which in labels.items()
    ]
    meant = (
        f"Differences are {comparison.names[1]} minus {comparison.names[0]}, those of per cents in "
        "points; after them stands the 95 % interval. -3 +5 means that three examples are no "
        "longer right and five are now."
    )
    doubted = [
        f"{name}: {line}"
        for name, report in zip(
            comparison.names, (comparison.first, comparison.second), strict=True
        )
        for line in doubts(report)
    ]
    if doubted:
        meant += " Values that end in ? may overstate robustness; so their difference says little."
    return [meant, *doubted, *comparison.notes, *reasons]


def provenance(comparison: Comparison) -> list[tuple[str, str, str]]:
    """What was audited and how, of both."""
    one, other = (_facts(report) for report in (comparison.first, comparison.second))
    return [(key, one.get(key, ""), other.get(key, "")) for key in {**one, **other}]


def p_text(p_value: float) -> str:
    """Two significant digits.

    >>> p_text(0.0768), p_text(1.0), p_text(1e-9)
    ('0.077', '1', '<0.0001')
    """
    return "<0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def _facts(report: Report) -> dict[str, str]:
    threat = report.threat
    return {
        **dict(subject_rows(report.subject)),
        "Threat model": threat_text(threat),
        **dict(provenance_rows(report.provenance, report.robaudit)),
    }


def _label(row: Difference, splits: bool) -> str:
    return f"{row.label} ({plain(row.split)})" if splits and row.split != "gap" else row.label


def _value(measurement: Measurement | None) -> str:
    if measurement is None:
        return "-"
    if measurement.status != "ok":
        return measurement.status
    parts = shown(measurement)
    return f"{parts.value} %" if parts.unit == "%" else parts.value


def _difference(row: Difference) -> str:
    if row.value is None:
        return "not comparable"
    # A difference of shares is in points, as that of a gap is.
    parts = shown(
        Measurement(
            name=row.name, value=row.value, unit=row.unit, split="gap", interval=row.interval,
            standard_error=row.standard_error,
        )
    )  # fmt: skip
    sign = "+" if row.value > 0 else ""
    return f"{sign}{parts.value} {parts.spread}".strip()


def _few(places: tuple[int, ...]) -> str:
    listed = ", ".join(str(place) for place in places[:_FEW])
    return listed if len(places) <= _FEW else f"{listed}, ..."
