"""A report in every format a person or a program reads: terminal, JSON, CSV, markdown, LaTeX.

Everything is rendered from :class:`robaudit.schema.Report` alone, so that a report can be read
where no torch is installed. A view is a function from reports to tables
(:mod:`robaudit.report.table`); :mod:`robaudit.report.formats` draws any table in any format and
makes text from checkpoints and data harmless.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from robaudit.errors import UsageError
from robaudit.report.comparison import comparison_tables
from robaudit.report.csvfile import layers_csv, to_csv
from robaudit.report.folder import fill_folder, report_folder
from robaudit.report.formats.latex import latex_text
from robaudit.report.formats.markdown import markdown_text
from robaudit.report.formats.terminal import terminal_text
from robaudit.report.jsonfile import read_report, schema_json, to_json, to_object, write_report
from robaudit.report.paper import paper_tables
from robaudit.report.report_tables import report_screen, report_tables, to_markdown
from robaudit.report.table import Table
from robaudit.report.verdicts import verdicts
from robaudit.schema import Report

Format = Literal["table", "json", "csv", "md", "latex"]

__all__ = [
    "Format",
    "comparison_tables",
    "fill_folder",
    "layers_csv",
    "read_report",
    "render",
    "report_folder",
    "report_tables",
    "schema_json",
    "screen_tables",
    "to_csv",
    "to_json",
    "to_markdown",
    "verdicts",
    "write_report",
]


def screen_tables(found: Sequence[Report | str]) -> list[Table]:
    """One report, or the comparison of several, as a terminal shows it.

    Args:
        found: reports; in a curve, the source of a checkpoint that could not be audited is a gap.

    Raises:
        UsageError: no reports.
        DataError: a table in the ``details`` of a report cannot be read.
    """
    reports = [one for one in found if not isinstance(one, str)]
    if len(reports) == 1:
        return report_screen(reports[0])
    return comparison_tables(found, drawn=True)


def render(
    reports: Sequence[Report], format: Format, width: int = 100, several: bool = False
) -> str:
    """Reports as text that ends in a newline.

    ``table`` is the view of one report or the comparison of several, without colours; ``json`` one
    object or an array of them; ``csv`` one table of all; ``md`` one document, which begins with
    the comparison when there are several; ``latex`` the tables that belong in a paper.

    Args:
        reports: at least one.
        format: the format's name.
        width: columns of the ``table``.
        several: write an array of ``json`` even for a single report.

    Raises:
        UsageError: no reports, or an unknown format.
        RobauditError: a number in a report is not finite, which JSON cannot say.
    """
    if not reports:
        raise UsageError("there is no report to render")
    one = reports[0] if len(reports) == 1 else None
    match format:
        case "table":
            return terminal_text(*screen_tables(reports), width=width)
        case "json":
            if one is not None and not several:
                return to_json(one) + "\n"
            objects = [to_object(report) for report in reports]
            return json.dumps(objects, indent=2, allow_nan=False) + "\n"
        case "csv":
            return to_csv(*reports)
        case "md":
            documents = [to_markdown(report) for report in reports]
            if one is None:
                compared = markdown_text(*comparison_tables(reports))
                documents.insert(0, f"# Comparison\n\n{compared}")
            return "\n".join(documents)
        case "latex":
            return latex_text(*paper_tables(reports))
    raise UsageError(f"unknown format {format!r}", "Known formats: table, json, csv, md, latex.")
