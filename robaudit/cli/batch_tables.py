"""``robaudit batch leaderboard`` and ``batch study``: what a run says about all of its models."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robaudit.cli.messages import console
from robaudit.cli.read import write_file
from robaudit.errors import UsageError

if TYPE_CHECKING:
    from robaudit.report.table import Table

Directories = Annotated[
    Path, typer.Argument(metavar="DIR", show_default=False, help="The run's folder.")
]


class Format(StrEnum):
    """What is printed."""

    table = "table"
    csv = "csv"
    md = "md"
    html = "html"


def leaderboard(
    directory: Directories,
    format: Annotated[Format, typer.Option("--format", help="What is printed.")] = Format.table,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to this file instead of stdout.")
    ] = None,
) -> None:
    """Show a run's models by their robust accuracy.

    [bold]robaudit batch leaderboard runs/zoo --format html --out zoo.html[/bold]

    Ranked by the strongest attack that all were measured with; those whose intervals overlap share
    their places. RobustBench's published figure stands beside ours, with the difference.
    """
    from robaudit.batch.directory import find
    from robaudit.batch.leaderboard import leaderboards
    from robaudit.batch.leaderboard_table import (
        leaderboard_csv,
        leaderboard_html,
        leaderboard_tables,
    )
    from robaudit.report.formats.csv_text import csv_text

    found = leaderboards(find(directory).state())
    match format:
        case Format.csv:
            text = csv_text(leaderboard_csv(found))
        case Format.md:
            text = _document("Leaderboard", leaderboard_tables(found))
        case Format.html:
            text = leaderboard_html(found)
        case Format.table:
            text = _printed(leaderboard_tables(found), out)
    if out is None:
        sys.stdout.write(text)
    else:
        write_file(out, text.encode("utf-8", "replace"))


class StudyFormat(StrEnum):
    """What is printed."""

    table = "table"
    csv = "csv"
    md = "md"


def study(
    directory: Directories,
    format: Annotated[
        StudyFormat, typer.Option("--format", help="What is printed.")
    ] = StudyFormat.table,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write study.csv, study.md and the pictures here."),
    ] = None,
) -> None:
    """Correlate curvature, flatness and norms with robust loss, error and gaps over a run's models.

    [bold]robaudit batch study runs/zoo --out study[/bold]

    Pearson's, Spearman's and Kendall's coefficients with bootstrap intervals, for each data set and
    threat model with three models or more; the pictures show each outcome against each measure.
    """
    from robaudit.batch.directory import find
    from robaudit.batch.study import studies, study_csv, study_tables
    from robaudit.report.formats.csv_text import csv_text

    found = studies(find(directory).state())
    as_csv = csv_text(study_csv(found))
    as_markdown = _document("Study", study_tables(found))
    if out is not None:
        from robaudit.batch.study_plot import write_study_plots

        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / "study.csv").write_text(as_csv, encoding="utf-8")
            (out / "study.md").write_text(as_markdown, encoding="utf-8")
            write_study_plots(found, out)
        except OSError as error:
            raise UsageError(
                f"cannot write to {out}: {error.strerror or error}", "Choose another --out."
            ) from None
    match format:
        case StudyFormat.csv:
            sys.stdout.write(as_csv)
        case StudyFormat.md:
            sys.stdout.write(as_markdown)
        case StudyFormat.table:
            _printed(study_tables(found), None)


def _document(title: str, tables: Sequence[Table]) -> str:
    from robaudit.report.formats.markdown import markdown_text

    return f"# {title}\n\n{markdown_text(*tables)}"


def _printed(tables: Sequence[Table], out: Path | None) -> str:
    """Prints the tables, in colour on a terminal; returns them as text where they go to a file."""
    from robaudit.report.formats.terminal import terminal_view

    if out is None:
        console().print(terminal_view(*tables))
        return ""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=120).print(terminal_view(*tables))
    return text.getvalue()
