"""The files of a landscape, written all or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robaudit.report.folder import drafted, writing
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.landscape import Landscape
from robaudit.report.landscape_npz import FILE_NAME, write_npz
from robaudit.report.landscape_tables import landscape_data
from robaudit.report.pictures.landscape import save_landscape

_PICTURES = ("landscape", "landscape-contour", "landscape-surface")
_FILES = (
    FILE_NAME,
    "landscape.csv",
    *(f"{name}.{kind}" for name in _PICTURES for kind in ("svg", "png")),
)


@contextmanager
def landscape_folder(target: Path) -> Iterator[Path]:
    """A folder to write to, whose files go to ``target`` when the block ends well.

    Open it before the work begins: an error in writing to ``target`` is then raised at once. Files
    of an earlier landscape are replaced; other files there, such as a report's, are kept.

    Raises:
        UsageError: ``target`` cannot be written.
    """
    target = target.expanduser().absolute()

    def replace_files(draft: Path) -> None:
        for name in _FILES:
            (target / name).unlink(missing_ok=True)
        for file in draft.iterdir():
            file.replace(target / file.name)

    with drafted(target, target, "landscape", replace_files) as draft:
        yield draft


def fill_landscape(folder: Path, landscape: Landscape) -> None:
    """Write ``landscape.npz`` and ``.csv``, and as SVG and PNG ``landscape``, or over a plane
    ``landscape-contour`` and ``landscape-surface``.

    Raises:
        UsageError: the folder cannot be written.
    """
    with writing(folder):
        write_npz(landscape, folder / FILE_NAME)
        (folder / "landscape.csv").write_text(csv_text(landscape_data(landscape)), encoding="utf-8")
        save_landscape(landscape, folder)
