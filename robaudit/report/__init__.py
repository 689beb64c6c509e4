"""A report in every format a person or a program reads: terminal, JSON, CSV, markdown.

Everything is rendered from :class:`robaudit.schema.Report` alone, so that a report can be read
where no torch is installed. Text from checkpoints and data is made harmless on its way out.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Literal

from rich.console import Console

from robaudit.errors import UsageError
from robaudit.report.comparison import comparison_markdown, comparison_view
from robaudit.report.csvfile import layers_csv, to_csv
from robaudit.report.folder import fill_folder, report_folder
from robaudit.report.jsonfile import read_report, schema_json, to_json, to_object, write_report
from robaudit.report.markdown import to_markdown
from robaudit.report.terminal import report_view
from robaudit.report.verdicts import verdicts
from robaudit.schema import Report

Format = Literal["table", "json", "csv", "md"]

__all__ = [
    "Format",
    "comparison_markdown",
    "comparison_view",
    "fill_folder",
    "layers_csv",
    "read_report",
    "render",
    "report_folder",
    "report_view",
    "schema_json",
    "to_csv",
    "to_json",
    "to_markdown",
    "verdicts",
    "write_report",
]


def render(
    reports: Sequence[Report], format: Format, width: int = 100, several: bool = False
) -> str:
    """Reports as text that ends in a newline.

    ``table`` is the view of one report or the comparison of several, without colours; ``json`` one
    object or an array of them; ``csv`` one table of all; ``md`` one document, which begins with
    the comparison when there are several.

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
            return _text(reports, width)
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
                documents.insert(0, f"# Comparison\n\n{comparison_markdown(reports)}")
            return "\n".join(documents)
    raise UsageError(f"unknown format {format!r}", "Known formats: table, json, csv, md.")


def _text(reports: Sequence[Report], width: int) -> str:
    text = io.StringIO()
    console = Console(file=text, width=width, color_system=None, force_terminal=False)
    console.print(report_view(reports[0]) if len(reports) == 1 else comparison_view(reports))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
