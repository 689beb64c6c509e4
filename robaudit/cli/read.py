"""``robaudit report`` and ``robaudit schema``: need neither a GPU nor torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from robaudit.errors import UsageError

if TYPE_CHECKING:
    from robaudit.schema import Report

OutFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write to this file instead of stdout.")
]


ReportFormat = Literal["table", "json", "csv", "md", "model-card", "latex", "html", "parquet"]
_SUFFIXES = {
    **{f".{name}": name for name in ("json", "csv", "md", "html", "parquet")},
    ".tex": "latex",
    ".txt": "table",
}
FORMAT_HELP = "What is printed or written. [default: what --out ends in, else table]"


def format_of(format: str | None, out: Path | None, formats: Any) -> Any:
    """The format that is asked for, else that of the suffix of ``--out``, else ``table``.

    Args:
        formats: the ``Literal`` of those that the command has.

    Raises:
        UsageError: the suffix is of no format that the command has.
    """
    from robaudit.report.text import plain

    known = get_args(formats)
    suffix = "" if out is None else out.suffix.lower()
    found = format or (_SUFFIXES.get(suffix) if suffix else "table")
    if found not in known:
        ends = ", ".join(end for end, name in _SUFFIXES.items() if name in known)
        raise UsageError(
            f"--out {plain(out)}: {suffix} is no format", f"Give --format, or one of {ends}."
        )
    return found


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", show_default=False, help="Report folders, or report.json files."
        ),
    ],
    format: Annotated[
        ReportFormat | None,
        typer.Option(
            help="What is printed or written; model-card is the README.md of a model on the "
            "Hugging Face Hub; parquet needs --out and the extra. [default: what --out ends in, "
            "else table]"
        ),
    ] = None,
    out: OutFile = None,
) -> None:
    """Show reports again, in another format; several are compared.

    [bold]robaudit report results/robust --format md[/bold]

    A folder that holds one report folder per checkpoint stands for all of them. Of a folder that
    robaudit landscape or robaudit flatness wrote, the table is shown again, and with --out FOLDER
    the pictures are drawn again.
    """
    from robaudit.cli.measure import show
    from robaudit.cli.redraw import redraw
    from robaudit.report import read_report, render
    from robaudit.report.folder import reports_in
    from robaudit.report.model_card import model_card
    from robaudit.report.parquet import to_parquet

    ending = None if out is None else _SUFFIXES.get(out.suffix.lower())
    if len(paths) == 1 and redraw(paths[0], format or ending or "table", out):
        return
    chosen: ReportFormat = format_of(format, out, ReportFormat)
    if chosen == "parquet" and out is None:
        raise UsageError("parquet is no text for a terminal", "Give --out FILE.parquet.")
    places = [path for given in paths for path in reports_in(given)]
    reports = [read_report(path) for path in places]
    if chosen == "parquet":
        put(to_parquet(reports), out)
    elif chosen == "html":
        put(_page(reports, places, out), out)
    elif chosen == "model-card":
        put(model_card(reports), out)
    elif out is not None:
        put(render(reports, chosen), out)
    else:
        show(reports, chosen)


def _page(reports: list[Report], places: list[Path], out: Path | None) -> str:
    """The page of one report, or an index of several that links to those below it."""
    from robaudit.report.html import index_html, to_html

    folders = [path if path.is_dir() else path.parent for path in places]
    if len(reports) == 1:
        return to_html(reports[0], folders[0])
    here = (Path() if out is None else out.parent).resolve()
    pages = [folder.resolve() / "report.html" for folder in folders]
    links = [
        page.relative_to(here).as_posix() if page.exists() and page.is_relative_to(here) else None
        for page in pages
    ]
    return index_html(reports, links)


def put(content: str | bytes, out: Path | None) -> None:
    """Print it, or write it to the file that ``--out`` names.

    Raises:
        UsageError: the file cannot be written.
    """
    from robaudit.report.folder import writing

    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    if out is None:
        sys.stdout.write(data.decode())
        return
    with writing(out):
        out.write_bytes(data)


Schema = Literal["report", "policy", "verdict", "manifest"]
"""The files that have a JSON Schema."""


def schema(
    what: Annotated[
        Schema, typer.Argument(metavar="WHAT", help="report, policy, verdict or manifest.")
    ] = "report",
) -> None:
    """Print a JSON Schema: of report.json, a gate's policy, its verdict, or a batch's manifest."""
    from robaudit.batch.manifest import manifest_schema
    from robaudit.gate.policy import policy_schema
    from robaudit.report.jsonfile import schema_json, verdict_schema_json

    made = {
        "report": schema_json,
        "policy": policy_schema,
        "verdict": verdict_schema_json,
        "manifest": manifest_schema,
    }
    sys.stdout.write(made[what]())
    sys.stdout.write("\n")
