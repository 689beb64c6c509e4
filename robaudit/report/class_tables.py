"""Clean and robust accuracy of every class, and where adversarial images go, as tables."""

from __future__ import annotations

from collections import Counter

from robaudit.report.details import ClassRow, class_rows, confusion_counts, extra
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.naming import SUBJECT, subject_cells
from robaudit.report.numbers import percent, shown
from robaudit.report.table import Cell, Column, Table, names, text
from robaudit.report.text import plain
from robaudit.report.words import attack_in_words
from robaudit.schema import Report

MOST_CONFUSED = 20
"""Classes beyond which the confusion is no table of its own."""
_SUBJECT = (*SUBJECT, "data", "split", "norm", "eps")
_CLASS = ("label", "name", "n", "clean", "clean_low", "clean_high", "robust", "low", "high")
_LONGEST = 24


def class_tables(report: Report, split: str | None = None, most: int | None = None) -> list[Table]:
    """The classes of one split by ascending robust accuracy; none where it was not measured.

    Args:
        split: ``None`` for the audited one.
        most: only so many classes, the worst; a note says how many are left out.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    found, rows = report.get("accuracy.worst_class", split), class_rows(report, split)
    if found is None or not rows:
        return []
    taken = taken_for(report) if split in (None, report.data.split) else {}
    listed = sorted(rows, key=lambda row: (row.robust, row.label))[:most]
    columns = [names("Class"), Column("n"), Column("Clean, %"), Column("Robust, %")]
    columns += [text("Broken images are taken for")] if taken else []
    cells = [
        [
            Cell(name_of(row)),
            Cell(str(row.n), value=row.n),
            _share(row.clean, row.clean_low, row.clean_high),
            _share(row.robust, row.low, row.high),
            *([Cell(taken.get(row.label, ""))] if taken else []),
        ]
        for row in listed
    ]
    attacks = extra(found, "attacks")
    by = ", ".join(attack_in_words(plain(str(name))) for name in attacks or ())
    notes = [
        "In brackets: intervals that hold for all classes together, at the level of the others.",
        f"Robust: what none of these attacks broke: {by}.",
    ]
    if len(rows) > len(listed):
        notes.append(f"{len(rows) - len(listed)} classes that are no worse are not listed.")
    title = "Classes" if split is None else f"Classes, {plain(split)} examples"
    return [Table(columns, cells, title, notes=notes)]


def confusion_table(report: Report) -> Table | None:
    """Label by predicted class: counts of broken images; ``None`` beyond :data:`MOST_CONFUSED`.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    rows, counts = class_rows(report), confusion_counts(report)
    if not rows or not counts:
        return None
    labels = {row.label: name_of(row) for row in rows}
    to = sorted({*labels, *(predicted for _, predicted in counts)})
    if len(to) > MOST_CONFUSED:
        return None
    columns = [names("Class"), *(Column(_name(report, label)) for label in to)]
    cells = []
    for label, name in labels.items():
        line = [Cell(name)]
        for predicted in to:
            count = counts.get((label, predicted), 0)
            line.append(Cell(str(count) if count else "", value=count))
        cells.append(line)
    caption = (
        "Examples that were classified correctly and broken; rows are their classes, columns what "
        "the network takes their adversarial images for."
    )
    return Table(columns, cells, "Where adversarial images go", caption)


def classes_csv(*reports: Report) -> str:
    """One row a class and split, the header alone where no class was measured.

    Raises:
        DataError: a table that lacks a column or holds no numbers.
    """
    rows: list[tuple[object, ...]] = []
    for report in reports:
        for m in report.measurements:
            if m.name != "accuracy.worst_class":
                continue
            own = m.split == report.data.split
            counts = confusion_counts(report) if own else {}
            data = report.train_data if not own and report.train_data else report.data
            cells = {**subject_cells(report), "data": data.name, "split": m.split}
            for row in class_rows(report, m.split):
                going = {to: n for (label, to), n in counts.items() if label == row.label}
                taken = " ".join(f"{to}:{n}" for to, n in sorted(going.items()))
                rows.append(
                    (
                        *(cells.get(column) for column in _SUBJECT),
                        *(getattr(row, name) for name in _CLASS),
                        taken,
                    )
                )
    return csv_text(Table.of((*_SUBJECT, *_CLASS, "taken_for"), rows))


def worst_class_line(report: Report) -> list[str]:
    """The worst class in a sentence; nothing where no class was measured."""
    found = report.get("accuracy.worst_class")
    rows = class_rows(report)
    if found is None or found.value is None or len(rows) < 2:
        return []
    worst = min(rows, key=lambda row: row.robust)
    return [
        f"The worst class is {name_of(worst)}: {shown(found)} of its {worst.n} examples are "
        f"robust. As the smallest of {len(rows)} estimates, that is likely below the worst class's "
        "true accuracy; the interval takes that into account."
    ]


def taken_for(report: Report) -> dict[int, str]:
    """By label, the class that most of its broken images are taken for, and how many of them."""
    found: dict[int, Counter[int]] = {}
    for (label, predicted), count in confusion_counts(report).items():
        found.setdefault(label, Counter())[predicted] += count
    said = {}
    for label, counts in found.items():
        predicted, count = min(counts.items(), key=lambda one: (-one[1], one[0]))
        said[label] = f"{_name(report, predicted)} ({count} of {counts.total()})"
    return said


def name_of(row: ClassRow) -> str:
    """``3 cat``; the label alone where the class has no name."""
    return _named(row.label, row.name)


def _name(report: Report, label: int) -> str:
    found = report.get("accuracy.worst_class")
    listed = extra(found, "names") if found else None
    if isinstance(listed, list) and label < len(listed) and listed[label]:
        return _named(label, str(listed[label]))
    return str(label)


def _named(label: int, name: str) -> str:
    shown_name = plain(name)
    if len(shown_name) > _LONGEST:
        shown_name = f"{shown_name[: _LONGEST - 1]}…"
    return shown_name if shown_name == str(label) else f"{label} {shown_name}"


def _share(value: float, low: float, high: float) -> Cell:
    spread = f"[{100 * low:.1f}, {100 * high:.1f}]"
    return Cell(percent(value).removesuffix(" %"), spread, value=value)
