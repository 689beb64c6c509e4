"""``robaudit compare``: two audits, or two checkpoints, on the same examples."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from robaudit.cli.display import Screen
from robaudit.cli.measure import run
from robaudit.cli.messages import show_tables
from robaudit.cli.options import Settings, with_settings
from robaudit.cli.read import FORMAT_HELP, format_of, put
from robaudit.errors import UsageError
from robaudit.request import PresetName

if TYPE_CHECKING:
    from collections.abc import Callable

    from robaudit.report.compare import Comparison

_OUT = "Output"


ComparisonFormat = Literal["table", "json", "csv", "md", "latex", "html"]
"""The formats of a comparison."""


@with_settings(
    omit=frozenset(
        ["out", "on_result", "format", "json", "sha256", "state", "samples", "straight_through"]
    )
)
def compare(
    a: Annotated[
        str,
        typer.Argument(metavar="A", show_default=False, help="A report folder, or a checkpoint."),
    ],
    b: Annotated[str, typer.Argument(metavar="B", show_default=False, help="Another.")],
    settings: Settings,
    preset: Annotated[
        PresetName, typer.Option(help="What is measured of two checkpoints.")
    ] = "quick",
    format: Annotated[
        ComparisonFormat | None,
        typer.Option("--format", help=FORMAT_HELP, rich_help_panel=_OUT),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write to this file instead of stdout.", rich_help_panel=_OUT
        ),
    ] = None,
) -> None:
    """Say by how much two checkpoints differ in every measurement, and on which examples.

    [bold]robaudit compare results/before results/after[/bold]

    Accuracies and losses are paired example by example, with an exact test and an interval of the
    difference. Of two report folders nothing is measured again, and no other option is needed; of
    two checkpoints both are audited first, with the same options.
    """
    from robaudit.report.compare import compare as compared
    from robaudit.report.compare_outcomes import read_audited

    chosen: ComparisonFormat = format_of(format, out, ComparisonFormat)
    if out is not None and not out.absolute().parent.is_dir():  # before the work begins
        raise UsageError(f"cannot write to {out}: no such folder", "Choose another --out.")
    code = 0
    if _is_report(a) and _is_report(b):
        found = compared(read_audited(Path(a)), read_audited(Path(b)))
    elif _is_report(a) or _is_report(b):
        raise UsageError(
            f"one of {a} and {b} is a report and the other is not",
            "Give two report folders, or two checkpoints.",
        )
    else:
        found, code = _measured(a, b, preset, settings)
    _write(found, chosen, out)
    if code:
        raise typer.Exit(code)


def _is_report(name: str) -> bool:
    path = Path(name)
    return path.suffix == ".json" or (path / "report.json").is_file()


def _measured(a: str, b: str, preset: PresetName, settings: Settings) -> tuple[Comparison, int]:
    """Audit both into temporary folders, then compare those as any other report folders."""
    from robaudit.audit import preset as plan_of
    from robaudit.report.compare import compare as compared
    from robaudit.report.compare_outcomes import read_audited
    from robaudit.session.which_data import with_data

    settings = with_data(settings, [a], Screen(settings.quiet))
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / name for name in ("first", "second")]
        code = 0
        for checkpoint, folder in zip((a, b), folders, strict=True):
            done = run([checkpoint], plan_of(preset), settings, out=folder)
            code = code or done.code
        return compared(*(read_audited(folder) for folder in folders)), code


def _write(found: Comparison, format: ComparisonFormat, out: Path | None) -> None:
    from robaudit.report.compare_tables import (
        compare_data,
        compare_json,
        compare_markdown,
        compare_tables,
        comparison_paper,
    )
    from robaudit.report.formats.csv_text import csv_text
    from robaudit.report.formats.latex import latex_text
    from robaudit.report.formats.terminal import terminal_text
    from robaudit.report.html.compare_page import compare_html

    if format == "table" and out is None:
        show_tables(*compare_tables(found))
        return
    texts: dict[ComparisonFormat, Callable[[], str]] = {
        "table": lambda: terminal_text(*compare_tables(found)),
        "json": lambda: compare_json(found),
        "csv": lambda: csv_text(compare_data(found)),
        "md": lambda: compare_markdown(found),
        "latex": lambda: latex_text(*comparison_paper(found)),
        "html": lambda: compare_html(found),
    }
    put(texts[format](), out)
