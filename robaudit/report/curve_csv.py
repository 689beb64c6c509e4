"""The curve as CSV: one row a checkpoint."""

from __future__ import annotations

import csv
import io

from robaudit.report.curve import QUANTITIES, Curve, Point
from robaudit.report.curve_axis import shown_place
from robaudit.report.naming import IDENTITY, identity
from robaudit.report.text import csv_cell

_SUBJECT = ("subject", "sha256", *IDENTITY, "data", "norm", "eps", "n_test", "n_train")
_EXACT = frozenset({"wci_bound_test", "wci_bound_train", "weights_squared"})
COLUMNS = (
    "axis",
    "place",
    *_SUBJECT,
    *(
        name
        for key in QUANTITIES
        for name in ((key,) if key in _EXACT else (key, f"{key}_standard_error"))
    ),
)


def curve_csv(curve: Curve) -> str:
    """One row a checkpoint in the curve's order, numbers unrounded, each with its standard error.

    An empty cell is a number that was not measured. Fractions are fractions. Text that a
    spreadsheet would take for a formula is preceded by ``'``.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for point in curve.points:
        row: dict[str, object] = {
            "axis": csv_cell(curve.axis.name),
            "place": shown_place(point.place),
            **_subject(point),
        }
        for key, number in point.numbers.items():
            row[key] = number.value
            if key not in _EXACT:
                row[f"{key}_standard_error"] = number.standard_error
        writer.writerow(row)
    return text.getvalue()


def _subject(point: Point) -> dict[str, object]:
    report = point.report
    if report is None:
        return {"subject": csv_cell(point.source)}
    splits = [data for data in (report.data, report.train_data) if data is not None]
    return {
        "subject": csv_cell(report.subject.source),
        "sha256": csv_cell(report.subject.sha256 or ""),
        **identity(report.subject),
        "data": csv_cell(report.data.name),
        **({} if (threat := report.threat) is None else {"norm": threat.norm, "eps": threat.eps}),
        **{f"n_{data.split}": data.n for data in splits if data.split in ("test", "train")},
    }
