"""A report's folder: written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robaudit.atomic_write import draft_folder, remove_empty, swap
from robaudit.errors import RobauditError, UsageError
from robaudit.report.csvfile import layers_csv, to_csv
from robaudit.report.curve import Curve, curve_data
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.jsonfile import write_report
from robaudit.report.naming import name_of
from robaudit.report.pictures.accuracies import radii
from robaudit.report.pictures.curvature import curvature
from robaudit.report.pictures.curves import WCI, course
from robaudit.report.pictures.drawing import save
from robaudit.report.report_tables import to_markdown
from robaudit.schema import Report

if TYPE_CHECKING:
    from robaudit.report.gallery import Gallery


@contextmanager
def report_folder(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its place when the block ends well.

    Opened before an audit begins, it finds out at once whether its report can be written; after an
    error or an interrupt nothing is left of it and ``target`` is as it was.

    Raises:
        UsageError: ``target`` cannot be written, or holds something else than a report.
    """
    target = target.expanduser().absolute()
    _check_replaceable(target)
    made = [folder for folder in target.parents if not folder.exists()]
    with ExitStack() as stack:
        stack.callback(remove_empty, made)
        try:
            staging = stack.enter_context(draft_folder(target.parent, target.name))
        except OSError as error:
            raise _unwritable(target, error) from error
        yield staging
        try:
            swap(staging, target)
        except OSError as error:
            raise _unwritable(target, error) from error


def fill_folder(
    folder: Path, report: Report, outcomes: Mapping[str, Any], gallery: Gallery | None = None
) -> None:
    """Write ``report.html``, ``report.json``, ``report.md``, ``measurements.csv``, ``layers.csv``,
    ``examples.npz``, and as SVG and PNG the pictures ``curvature`` where curvature was measured and
    ``robustness`` where several radii were attacked; ``gallery.npz`` where there is a gallery.

    Args:
        outcomes: per-example arrays by ``split.name``.
        gallery: adversarial examples to look at.

    What cannot be drawn or worded does not take the other files along; it is said at the end.

    Raises:
        UsageError: the folder cannot be written.
        RobauditError: a file could not be made; the others are there.
    """
    import numpy as np

    from robaudit.report.gallery import write_gallery
    from robaudit.report.html import to_html

    name = name_of(report.subject)
    parts: list[tuple[str, Callable[[], object]]] = [
        ("report.json", lambda: write_report(report, folder / "report.json")),
        ("examples.npz", lambda: np.savez_compressed(folder / "examples.npz", **outcomes)),
        ("report.md", lambda: _write(folder / "report.md", to_markdown(report))),
        ("measurements.csv", lambda: _write(folder / "measurements.csv", to_csv(report))),
        ("layers.csv", lambda: _write(folder / "layers.csv", layers_csv(report))),
        ("curvature", lambda: save(curvature(report), folder / "curvature", name)),
        ("robustness", lambda: save(radii(report), folder / "robustness", name)),
    ]
    if gallery is not None:
        parts.append(("gallery.npz", lambda: write_gallery(gallery, folder / "gallery.npz")))
    parts.append(("report.html", lambda: _write(folder / "report.html", to_html(report, folder))))
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    missing = []
    for part, make in parts:
        try:
            make()
        except OSError as error:
            raise _unwritable(folder, error) from error
        except RobauditError:
            raise
        except Exception as error:
            said = next(iter(str(error).splitlines()), "")
            missing.append(f"{part} could not be made: {type(error).__name__}: {said[:200]}")
    if missing:
        raise RobauditError("; ".join(missing), "The other files are there. Please report this.")


def _write(path: Path, text: str) -> None:
    # A file name that is no text must not cost a report: its odd bytes are question marks.
    path.write_text(text, encoding="utf-8", errors="replace")


def fill_index(folder: Path, reports: Sequence[Report], names: Sequence[str]) -> None:
    """Write ``index.html``, which links to the page of each report.

    Args:
        names: of the reports' own folders in ``folder``.

    Raises:
        UsageError: the folder cannot be written.
    """
    from robaudit.report.html import index_html

    page = index_html(reports, [f"{name}/report.html" for name in names])
    try:
        _write(folder / "index.html", page)
    except OSError as error:
        raise _unwritable(folder, error) from error


def fill_curve(folder: Path, curve: Curve) -> None:
    """Write ``curve.csv``, ``curve.svg`` and ``curve.png`` beside the reports' own folders.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        _write(folder / "curve.csv", csv_text(curve_data(curve)))
        save(course(curve, WCI), folder / "curve")
    except OSError as error:
        raise _unwritable(folder, error) from error


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"--out {target} is a file", "Name a folder.")
    entries = list(target.iterdir())
    known = any((folder / "report.json").is_file() for folder in [target, *entries])
    if entries and not known:
        raise UsageError(
            f"--out {target} holds other files, and would be replaced",
            "Name a new folder, or one that holds an earlier report.",
        )


def _unwritable(target: Path, error: OSError) -> UsageError:
    file = next((folder for folder in target.parents if folder.is_file()), None)
    if file is not None:
        return UsageError(f"cannot write to {target}: {file} is a file", "Choose another --out.")
    return UsageError(
        f"cannot write to {target}: {error.strerror or error}", "Choose another --out."
    )
