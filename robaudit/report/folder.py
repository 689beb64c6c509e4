"""A report's folder: written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robaudit.errors import UsageError
from robaudit.report.csvfile import layers_csv, to_csv
from robaudit.report.curve import Curve
from robaudit.report.curve_csv import curve_csv
from robaudit.report.curve_plot import write_curve_plots
from robaudit.report.jsonfile import write_report
from robaudit.report.markdown import to_markdown
from robaudit.report.plots import write_plots
from robaudit.report.radii import write_radii
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
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        yield staging
        try:
            _put_in_place(staging, target)
        except OSError as error:
            raise _unwritable(target, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        for folder in made:  # the nearest first; those that hold a report stay
            with suppress(OSError):
                folder.rmdir()


def _put_in_place(staging: Path, target: Path) -> None:
    staging.chmod(0o755)  # mkdtemp's folders are for their owner alone
    if not target.exists():
        staging.rename(target)
        return
    old = staging.with_name(staging.name + ".old")
    target.rename(old)
    staging.rename(target)
    shutil.rmtree(old)


def fill_folder(
    folder: Path, report: Report, outcomes: Mapping[str, Any], gallery: Gallery | None = None
) -> None:
    """Write ``report.html``, ``report.json``, ``report.md``, ``measurements.csv``, ``layers.csv``,
    ``examples.npz``, and as SVG and PNG the pictures ``curvature`` where curvature was measured and
    ``robustness`` where several radii were attacked; ``gallery.npz`` where there is a gallery.

    Args:
        outcomes: per-example arrays by ``split.name``.
        gallery: adversarial examples to look at.

    Raises:
        UsageError: the folder cannot be written.
    """
    import numpy as np

    from robaudit.report.gallery import write_gallery
    from robaudit.report.html import to_html

    try:
        folder.mkdir(exist_ok=True)
        write_report(report, folder / "report.json")
        (folder / "report.md").write_text(to_markdown(report), encoding="utf-8")
        (folder / "measurements.csv").write_text(to_csv(report), encoding="utf-8")
        (folder / "layers.csv").write_text(layers_csv(report), encoding="utf-8")
        write_plots(report, folder)
        write_radii(report, folder)
        np.savez_compressed(folder / "examples.npz", **outcomes)
        if gallery is not None:
            write_gallery(gallery, folder / "gallery.npz")
        (folder / "report.html").write_text(to_html(report, folder), encoding="utf-8")
    except OSError as error:
        raise _unwritable(folder, error) from error


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
        (folder / "index.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise _unwritable(folder, error) from error


def fill_curve(folder: Path, curve: Curve) -> None:
    """Write ``curve.csv``, ``curve.svg`` and ``curve.png`` beside the reports' own folders.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        (folder / "curve.csv").write_text(curve_csv(curve), encoding="utf-8")
        write_curve_plots(curve, folder)
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
