"""``robaudit batch leaderboard`` and ``batch study``: what a run says about all of its models."""

from __future__ import annotations

import io
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robaudit.cli.messages import console
from robaudit.cli.read import write_file
from robaudit.errors import UsageError

if TYPE_CHECKING:
    from robaudit.batch.study import Study

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
    from robaudit.batch import leaderboard_formats as formats
    from robaudit.batch.directory import find
    from robaudit.batch.leaderboard import tables

    found = tables(find(directory).state())
    match format:
        case Format.csv:
            text = formats.leaderboard_csv(found)
        case Format.md:
            text = formats.leaderboard_markdown(found)
        case Format.html:
            text = formats.leaderboard_html(found)
        case Format.table:
            text = _as_text(formats.leaderboard_view(found), out)
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
    from robaudit.batch import study as read
    from robaudit.batch.directory import find

    found = read.studies(find(directory).state())
    if out is not None:
        _write_study(found, out)
    match format:
        case StudyFormat.csv:
            sys.stdout.write(read.study_csv(found))
        case StudyFormat.md:
            sys.stdout.write(read.study_markdown(found))
        case StudyFormat.table:
            console().print(read.study_view(found))


def _write_study(found: list[Study], out: Path) -> None:
    from robaudit.batch.study import study_csv, study_markdown
    from robaudit.batch.study_plot import write_study_plots

    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "study.csv").write_text(study_csv(found), encoding="utf-8")
        (out / "study.md").write_text(study_markdown(found), encoding="utf-8")
        write_study_plots(found, out)
    except OSError as error:
        raise UsageError(
            f"cannot write to {out}: {error.strerror or error}", "Choose another --out."
        ) from None


def _as_text(view: Any, out: Path | None) -> str:
    """Printed at once, in colour on a terminal; as text where it goes to a file."""
    if out is None:
        console().print(view)
        return ""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=120).print(view)
    return text.getvalue()
