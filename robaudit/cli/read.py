"""``robaudit report`` and ``robaudit schema``: need neither a GPU nor torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from robaudit.cli.options import Format, FormatOption
from robaudit.errors import UsageError


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", show_default=False, help="Report folders, or report.json files."
        ),
    ],
    format: FormatOption = Format.table,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to this file instead of stdout.")
    ] = None,
) -> None:
    """Show reports again, in another format; several are compared.

    [bold]robaudit report results/robust --format md[/bold]

    A folder that holds one report folder per checkpoint stands for all of them.
    """
    from robaudit.cli.measure import show
    from robaudit.report import read_report, render

    reports = [read_report(path) for given in paths for path in _expanded(given)]
    if out is None:
        show(reports, format)
        return
    try:
        out.write_text(render(reports, format.value), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write to {out}: {error.strerror}", "Choose another --out."
        ) from None


def _expanded(path: Path) -> list[Path]:
    """The report folders under a folder that is none itself."""
    if path.is_dir() and not (path / "report.json").exists():
        inner = sorted(folder.parent for folder in path.glob("*/report.json"))
        if inner:
            return inner
    return [path]


def schema() -> None:
    """Print the JSON Schema of report.json, for tools that read it."""
    from robaudit.report import schema_json

    sys.stdout.write(schema_json())
    sys.stdout.write("\n")
