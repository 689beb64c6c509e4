"""``robaudit report`` on a folder of a landscape, or of flatness over checkpoints."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from robaudit.cli.messages import show_tables
from robaudit.errors import UsageError


def redraw(folder: Path, format: str, out: Path | None) -> bool:
    """Show the table again, and with ``out`` write the pictures and numbers into that folder; as
    LaTeX, the table of flatness into that file.

    Returns:
        whether the folder holds a landscape and no report, or flatness over checkpoints and a table
        of it was asked for; else nothing is done.
    """
    from robaudit.report.flatness_folder import FILE_NAME as FLATNESS
    from robaudit.report.landscape_npz import FILE_NAME as LANDSCAPE

    if (folder / "report.json").exists():
        return False
    if (folder / LANDSCAPE).is_file():
        _landscape(folder / LANDSCAPE, format, out)
        return True
    if (folder / FLATNESS).is_file() and format in ("table", "latex"):
        _flatness(folder, format, out)
        return True
    return False


def _flatness(folder: Path, format: str, out: Path | None) -> None:
    from robaudit.cli.read import put
    from robaudit.report.curve import curve_tables
    from robaudit.report.flatness_folder import read_flatness, write_flatness
    from robaudit.report.formats.latex import latex_text
    from robaudit.report.paper import curve_paper

    curve = read_flatness(folder)
    if format == "latex":
        put(latex_text(*curve_paper(curve)), out)
        return
    if out is not None:
        write_flatness(out, curve)
    show_tables(*curve_tables(curve, drawn=True))


def _landscape(file: Path, format: str, out: Path | None) -> None:
    from robaudit.report.formats.csv_text import csv_text
    from robaudit.report.landscape import landscape_object
    from robaudit.report.landscape_folder import fill_landscape, landscape_folder
    from robaudit.report.landscape_npz import read_npz
    from robaudit.report.landscape_tables import landscape_data, landscape_tables

    if format not in ("table", "json", "csv"):
        raise UsageError(f"a landscape has no format {format}", "Known formats: table, json, csv.")
    if out is not None and out.suffix in (".json", ".csv"):
        raise UsageError(f"--out {out}: of a landscape it names a folder", "Name one.")
    found = read_npz(file)
    if out is not None:
        with landscape_folder(out) as staging:
            fill_landscape(staging, found)
    if format == "json":
        sys.stdout.write(json.dumps(landscape_object(found), indent=2, allow_nan=False) + "\n")
    elif format == "csv":
        sys.stdout.write(csv_text(landscape_data(found)))
    else:
        show_tables(*landscape_tables(found))
