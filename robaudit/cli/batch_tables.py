"""``robaudit batch leaderboard`` and ``batch study``: all models of a run in one table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from robaudit.cli.messages import show_tables
from robaudit.cli.read import FORMAT_HELP, OutFile, format_of, put

if TYPE_CHECKING:
    from robaudit.report.table import Table

Directories = Annotated[
    Path, typer.Argument(metavar="DIR", show_default=False, help="The run's folder.")
]


LeaderboardFormat = Literal["table", "csv", "md", "latex", "html"]


def leaderboard(
    directory: Directories,
    format: Annotated[LeaderboardFormat | None, typer.Option("--format", help=FORMAT_HELP)] = None,
    out: OutFile = None,
) -> None:
    """Show a run's models by their robust accuracy.

    [bold]robaudit batch leaderboard runs/zoo --format html --out zoo.html[/bold]

    Models are ranked by the strongest attack that all were measured with, and share places where
    their intervals overlap. The accuracy that RobustBench publishes is shown with the difference.
    """
    from robaudit.batch.directory import find
    from robaudit.batch.leaderboard import leaderboards
    from robaudit.batch.leaderboard_table import (
        leaderboard_csv,
        leaderboard_html,
        leaderboard_paper,
        leaderboard_tables,
    )

    chosen: LeaderboardFormat = format_of(format, out, LeaderboardFormat)
    found = leaderboards(find(directory).state())
    tables = leaderboard_tables(found)
    if chosen == "table" and out is None:
        show_tables(*tables)
        return
    if chosen == "html":
        put(leaderboard_html(found, out and out.parent), out)
    elif chosen == "latex":
        put(_text(chosen, "Leaderboard", leaderboard_paper(found), leaderboard_csv(found)), out)
    else:
        put(_text(chosen, "Leaderboard", tables, leaderboard_csv(found)), out)


def study(
    directory: Directories,
    format: Annotated[
        Literal["table", "csv", "md", "latex"], typer.Option("--format", help="What is printed.")
    ] = "table",
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write study.csv, study.md and the pictures here."),
    ] = None,
    given: Annotated[
        str,
        typer.Option(
            metavar="MEASURE",
            help="What partial coefficients hold fixed: a measure's name, or parameters.",
        ),
    ] = "accuracy.clean",
) -> None:
    """Correlate measures with robust loss, error and gaps over a run's models.

    [bold]robaudit batch study runs/zoo --out study[/bold]

    Spearman's coefficient with its interval, partial and within one hyper-parameter, and p values,
    for each data set and threat model with three models or more. study.md and study.csv also have
    Pearson's and Kendall's; the pictures show all coefficients, and each outcome against each
    measure. Checkpoints of one training run are one group, as are a manifest's models of one group.
    """
    from robaudit.batch.directory import find
    from robaudit.batch.study import studies
    from robaudit.batch.study_tables import study_csv, study_document, study_tables

    found = studies(find(directory).state(), given)
    document, data = study_document(found), study_csv(found)
    if out is not None:
        from robaudit.batch.study_plot import write_study_plots
        from robaudit.report.folder import writing

        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            for name in ("csv", "md"):
                text = _text(name, "Study", document, data)
                (out / f"study.{name}").write_text(text, encoding="utf-8")
            write_study_plots(found, out)
    if format == "table":
        show_tables(*study_tables(found))
    else:
        sys.stdout.write(_text(format, "Study", document, data))


def _text(format: str, title: str, tables: Sequence[Table], data: Table) -> str:
    """The tables in a format; ``data`` is what CSV holds."""
    from robaudit.report.formats.csv_text import csv_text
    from robaudit.report.formats.latex import latex_text
    from robaudit.report.formats.markdown import markdown_text
    from robaudit.report.formats.terminal import terminal_text
    from robaudit.report.table import noted

    if format == "csv":
        return csv_text(data)
    if format == "latex":
        return latex_text(*noted(tables))
    if format == "md":
        return f"# {title}\n\n{markdown_text(*tables)}"
    return terminal_text(*tables, width=120)
