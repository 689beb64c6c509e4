"""``robaudit inspect``: what a checkpoint file is, without running any of it and without torch."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robaudit.cli.messages import show_tables
from robaudit.cli.options import Json
from robaudit.request import Copy
from robaudit.schema import unicode

if TYPE_CHECKING:
    from robaudit.checkpoints.inspection import Inspection

_LISTED = 20
# Characters of one name or value from the file; --json has all of it.
_WIDTH = 300


def inspect(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CKPT",
            show_default=False,
            help="Checkpoint file, Hugging Face folder, or a zoo's name: the files it reads.",
        ),
    ],
    hash: Annotated[
        bool | None,
        typer.Option(
            "--hash/--no-hash",
            help="Compute the SHA-256. [default: for files up to 256 MB]",
            show_default=False,
        ),
    ] = None,
    member: Annotated[
        str | None,
        typer.Option("--member", metavar="NAME", help="The state dict to show, of several."),
    ] = None,
    weights: Annotated[
        Copy | None,
        typer.Option("--weights", help="Which copy of the weights to show, of several."),
    ] = None,
    model_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where a zoo's checkpoints are. [default: the zoo's own place]",
            show_default=False,
        ),
    ] = None,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    json: Json = False,
) -> None:
    """Show what a checkpoint is, without loading it: nothing in the file is run.

    [bold]robaudit inspect ckpt.pt[/bold]

    Format, hash, what its pickle asks to import, tensors, and which architecture and normalisation
    they are, with the reasons. Exits with 4 when the file must not be loaded.
    """
    from robaudit.checkpoints.inspection import inspect_file
    from robaudit.checkpoints.sources import files_of, is_source

    zoo = is_source(checkpoint)
    paths = files_of(checkpoint, model_dir=model_dir) if zoo else (Path(checkpoint),)
    found = []
    for path in paths:
        with _progress(path if hash else None) as progress:
            found.append(
                inspect_file(path, hash=hash, member=member, weights=weights, progress=progress)
            )
    if json:
        plain = [_plain(one) for one in found]
        sys.stdout.write(jsonlib.dumps(plain if len(plain) > 1 else plain[0], indent=2) + "\n")
    else:
        for one in found:
            _show(one, tensors)
    if any(one.refusal is not None for one in found):
        raise typer.Exit(4)


@contextmanager
def _progress(path: Path | None) -> Iterator[Callable[[int], None] | None]:
    """A progress bar for the bytes that are hashed; none where stderr is not a terminal."""
    if path is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("SHA-256"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=path.stat().st_size if path.is_file() else None)
        yield lambda count: bar.advance(task, count)


def _show(found: Inspection, every: bool) -> None:
    from robaudit.report.table import Cell, Table, facts, names, text
    from robaudit.report.text import plain, shortened

    note = f" ({found.note})" if found.note else ""
    rows = [
        ("File", str(found.path)),
        ("Format", f"{found.format}{note}, {found.size:,} bytes"),
        ("SHA-256", found.sha256 or "not computed (--hash does)"),
        ("Weights", _weights(found)),
        ("Architecture", f"{found.architecture or 'not known'}: {found.architecture_reason}"),
        ("Normalisation", f"{found.normalization or 'not known'}: {found.normalization_reason}"),
    ]
    rows += [
        ("Metadata", f"{shortened(key, _WIDTH)} = {shortened(value, _WIDTH)}")
        for key, value in found.metadata.items()
    ]
    rows += [
        ("Pickle asks for", f"{finding.full_name} ({finding.severity})")
        for finding in found.findings[:_LISTED]
    ]
    if len(found.findings) > _LISTED:
        rows.append(("", f"and {len(found.findings) - _LISTED} more (--json lists all)"))
    rows += [("Remark", remark) for remark in found.remarks]
    if found.refusal is not None:
        rows.append(("Refused", found.refusal.message))
        if found.refusal.advice:
            rows.append(("", found.refusal.advice))
    header = facts((name, shortened(plain(said), 4 * _WIDTH)) for name, said in rows)
    listed = found.tensors if every else found.tensors[:12]
    cells = [
        [Cell(shortened(plain(one.name), _WIDTH)), Cell(str(tuple(one.shape))), Cell(one.dtype)]
        for one in listed
    ]
    left = len(found.tensors) - len(listed)
    notes = [f"{left} more tensors (--tensors lists all)"] if left else []
    tensors = [Table([names(), text(), text()], cells, notes=notes)] if listed else []
    show_tables(header, *tensors)


def _weights(found: Inspection) -> str:
    from robaudit.report.text import shortened

    where = f" under {shortened(found.member, _WIDTH)!r}" if found.member else ""
    if len(found.members) > 1:
        others = [
            repr(shortened(path or "the whole file", _WIDTH))
            for path in found.members
            if path != found.member
        ]
        where += f" (also there: {', '.join(others[:_LISTED])})"
    prefix = f", prefix {shortened(found.prefix, _WIDTH)!r} dropped" if found.prefix else ""
    return f"{len(found.tensors)} tensors{where}, {found.parameters:,} parameters{prefix}"


def _plain(found: Inspection) -> dict[str, Any]:
    shown: dict[str, Any] = unicode(
        {**asdict(found), "path": str(found.path), "metadata": dict(found.metadata)}
    )
    return shown
