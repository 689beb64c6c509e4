"""The files of flatness over checkpoints, and the curve read back from them."""

from __future__ import annotations

import csv
from pathlib import Path

from robaudit.errors import DataError
from robaudit.report.curve import Curve, curve_data
from robaudit.report.flatness_curve import flatness_curve
from robaudit.report.folder import writing
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.jsonfile import read_report
from robaudit.report.pictures.curves import FLATNESS, course, loss_against_flatness
from robaudit.report.pictures.drawing import save
from robaudit.report.text import csv_cell, plain
from robaudit.schema import Report

FILE_NAME = "flatness.csv"


def write_flatness(folder: Path, curve: Curve) -> None:
    """Write ``flatness.csv``, and as SVG and PNG ``flatness`` and ``flatness-loss``.

    Raises:
        UsageError: the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE_NAME).write_text(csv_text(curve_data(curve)), encoding="utf-8")
        save(course(curve, FLATNESS), folder / "flatness")
        save(loss_against_flatness(curve), folder / "flatness-loss")


def read_flatness(folder: Path) -> Curve:
    """The curve of a folder.

    Its ``flatness.csv`` says which checkpoints, in which order; all numbers are read from the
    reports below the folder, and a checkpoint without a report is a gap.

    Raises:
        DataError: a file in it that cannot be read.
    """
    file = folder / FILE_NAME
    try:
        with file.open(encoding="utf-8", newline="") as rows:
            subjects = [row["subject"] for row in csv.DictReader(rows)]
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise DataError(f"{plain(file)} cannot be read: {plain(error)}") from None
    reports: dict[str, list[Report]] = {}
    for path in sorted(folder.glob("*/report.json")):
        report = read_report(path)
        reports.setdefault(csv_cell(report.subject.source), []).append(report)
    return flatness_curve(
        [reports[one].pop(0) if reports.get(one) else str(one) for one in subjects]
    )
