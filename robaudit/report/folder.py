"""A report's folder: written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from robaudit.atomic_write import draft_folder, remove_empty, swap
from robaudit.errors import RobauditError, UsageError, error_line
from robaudit.report.class_tables import classes_csv
from robaudit.report.corruptions import corruptions_csv
from robaudit.report.csvfile import layers_csv, to_csv
from robaudit.report.curve import Curve, curve_data
from robaudit.report.details import class_rows
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.jsonfile import write_report
from robaudit.report.naming import name_of
from robaudit.report.pictures.accuracies import radii
from robaudit.report.pictures.corruptions import corruptions
from robaudit.report.pictures.curvature import curvature
from robaudit.report.pictures.curves import WCI, course
from robaudit.report.pictures.drawing import save
from robaudit.report.pictures.reliability import reliability
from robaudit.report.report_tables import to_markdown
from robaudit.report.text import plain
from robaudit.schema import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from robaudit.report.gallery import Gallery

PICTURES: Final[dict[str, Callable[[Report], Figure | None]]] = {
    "curvature": curvature,
    "robustness": radii,
    "corruptions": corruptions,
    "reliability": reliability,
}
"""What draws the pictures of a report's folder, by their names there."""


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
    with drafted(target, target.parent, target.name, lambda draft: swap(draft, target)) as draft:
        yield draft


def reports_in(path: Path) -> list[Path]:
    """The path itself; of a folder that is no report, the report folders in it."""
    if path.is_dir() and not (path / "report.json").exists():
        return sorted(folder.parent for folder in path.glob("*/report.json")) or [path]
    return [path]


@contextmanager
def drafted(
    target: Path, parent: Path, name: str, finish: Callable[[Path], object]
) -> Iterator[Path]:
    """A draft folder in ``parent``, handed to ``finish`` when the block ends well.

    After an error nothing is left of it, nor of the parents that were made for it.

    Raises:
        UsageError: ``target`` cannot be written.
    """
    made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    with ExitStack() as stack:
        stack.callback(remove_empty, made)
        with writing(target):
            draft = stack.enter_context(draft_folder(parent, name))
        yield draft
        with writing(target):
            finish(draft)


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Report an error of the file system as one of ``--out``.

    Raises:
        UsageError: ``target`` cannot be written.
    """
    try:
        yield
    except OSError as error:
        file = next((folder for folder in target.absolute().parents if folder.is_file()), None)
        why = error.strerror or error if file is None else f"{plain(file)} is a file"
        raise UsageError(
            f"cannot write to {plain(target)}: {why}", "Choose another --out."
        ) from error


def fill_folder(
    folder: Path, report: Report, outcomes: Mapping[str, Any], gallery: Gallery | None = None
) -> None:
    """Write ``report.html``, ``report.json``, ``report.md``, ``measurements.csv``, ``layers.csv``,
    ``examples.npz``, and as SVG and PNG the pictures ``curvature`` where curvature was measured,
    ``robustness`` where several radii were attacked and ``reliability`` where calibration was
    measured; ``corruptions.csv`` and the picture ``corruptions`` where these were measured;
    ``classes.csv`` where classes were; ``gallery.npz`` where there is a gallery.

    Args:
        outcomes: per-example arrays by ``split.name``.
        gallery: adversarial examples to look at.

    A file that cannot be made does not keep the others from being written; the error comes last.

    Raises:
        UsageError: the folder cannot be written.
        RobauditError: a file could not be made; the others are there.
    """
    import numpy as np

    from robaudit.report.gallery import write_gallery
    from robaudit.report.html import to_html

    def draw(picture: str) -> None:
        save(PICTURES[picture](report), folder / picture, name)

    name = name_of(report.subject)
    parts: list[tuple[str, Callable[[], object]]] = [
        ("report.json", lambda: write_report(report, folder / "report.json")),
        ("report.md", lambda: _write(folder / "report.md", to_markdown(report))),
        ("measurements.csv", lambda: _write(folder / "measurements.csv", to_csv(report))),
        ("layers.csv", lambda: _write(folder / "layers.csv", layers_csv(report))),
        ("corruptions.csv", lambda: _write_table(folder / "corruptions.csv", report)),
        *((picture, partial(draw, picture)) for picture in PICTURES),
    ]
    if outcomes:
        file = folder / "examples.npz"
        parts.append(("examples.npz", lambda: np.savez_compressed(file, **outcomes)))
    if class_rows(report):
        listed = folder / "classes.csv"
        parts.append((listed.name, lambda: _write(listed, classes_csv(report))))
    if gallery is not None:
        parts.append(("gallery.npz", lambda: write_gallery(gallery, folder / "gallery.npz")))
    parts.append(("report.html", lambda: _write(folder / "report.html", to_html(report, folder))))
    with writing(folder):
        folder.mkdir(exist_ok=True)
    missing = []
    for part, make in parts:
        try:
            with writing(folder):
                make()
        except RobauditError:
            raise
        except Exception as error:
            missing.append(f"{part} could not be made: {error_line(error)}")
    if missing:
        raise RobauditError("; ".join(missing), "The other files are there. Please report this.")


def _write(path: Path, text: str) -> None:
    # A file name that is no text must not cost a report: its odd bytes are question marks.
    path.write_text(text, encoding="utf-8", errors="replace")


def _write_table(path: Path, report: Report) -> None:
    if (table := corruptions_csv(report)) is not None:
        _write(path, csv_text(table))


def fill_index(folder: Path, reports: Sequence[Report], names: Sequence[str]) -> None:
    """Write ``index.html``, which links to the page of each report.

    Args:
        names: of the reports' own folders in ``folder``.

    Raises:
        UsageError: the folder cannot be written.
    """
    from robaudit.report.html import index_html

    page = index_html(reports, [f"{name}/report.html" for name in names])
    with writing(folder):
        _write(folder / "index.html", page)


def fill_curve(folder: Path, curve: Curve) -> None:
    """Write ``curve.csv``, ``curve.svg`` and ``curve.png`` beside the reports' own folders.

    Raises:
        UsageError: the folder cannot be written.
    """
    with writing(folder):
        _write(folder / "curve.csv", csv_text(curve_data(curve)))
        save(course(curve, WCI), folder / "curve")


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
