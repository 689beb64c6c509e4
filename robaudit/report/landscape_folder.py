"""The files of a landscape, put into a folder all at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from robaudit.atomic_write import draft_folder, remove_empty
from robaudit.errors import UsageError
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

    Opened before the work begins, it finds out at once whether ``target`` can be written. Files of
    an earlier landscape are replaced; others there, a report's for one, stay as they are.

    Raises:
        UsageError: ``target`` cannot be written.
    """
    target = target.expanduser().absolute()
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    with ExitStack() as stack:
        stack.callback(remove_empty, made)
        try:
            staging = stack.enter_context(draft_folder(target, "landscape"))
        except OSError as error:
            raise _unwritable(target, error) from error
        yield staging
        try:
            for name in _FILES:
                (target / name).unlink(missing_ok=True)
            for file in staging.iterdir():
                file.replace(target / file.name)
        except OSError as error:
            raise _unwritable(target, error) from error


def fill_landscape(folder: Path, landscape: Landscape) -> None:
    """Write ``landscape.npz`` and ``.csv``, and as SVG and PNG ``landscape``, or over a plane
    ``landscape-contour`` and ``landscape-surface``.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        write_npz(landscape, folder / FILE_NAME)
        (folder / "landscape.csv").write_text(csv_text(landscape_data(landscape)), encoding="utf-8")
        save_landscape(landscape, folder)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(target: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cannot write to {target}: {error.strerror or error}", "Choose another --out."
    )
