"""What a report and results do in a notebook. The work is done by the room of reports, when asked.

That room is above those that results come from, so it is imported by name. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


def _room() -> Any:
    return import_module("robaudit.report.notebook")


def html(result: Any) -> str:
    """A result as tables in HTML.

    Used as the ``_repr_html_`` of results, which Jupyter calls.
    """
    return str(_room().to_html(result))


@dataclass(eq=False)
class Beside:
    """What lies beside a report in its folder. It is no part of the report: any two are equal.

    Attributes:
        outcomes: per-example arrays by ``split.name``.
        gallery: a :class:`robaudit.report.gallery.Gallery`.
        folder: where the report was read, and where both are found.
    """

    outcomes: Mapping[str, Any] = field(default_factory=dict)
    gallery: Any = None
    folder: Path | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Beside)

    __hash__ = object.__hash__


class InNotebooks:
    """What a report can be turned into in Python."""

    _repr_html_ = html

    def to_pandas(self) -> DataFrame:
        """The measurements as a pandas ``DataFrame``, one row a measurement.

        Columns: ``name``, ``label``, ``split``, ``status``, ``value``, ``low`` and ``high`` (the
        ends of the interval) with its ``level``, ``standard_error``, ``unit``, ``n``, ``seconds``,
        ``reason`` and ``doubts``. Numbers are not rounded and fractions are fractions; what is
        missing is ``nan``. ``attrs`` of the frame has the checkpoint, data and threat model.

        Raises:
            UsageError: pandas is not installed.
        """
        return _room().to_pandas(self)

    def save(self, out: str | Path) -> Path:
        """Write the report folder, as ``--out`` does.

        Per-example outcomes and the gallery are written if the report comes from
        :func:`robaudit.run_audit` or :func:`robaudit.audit_checkpoint`, or from a folder that has
        them.

        Args:
            out: the folder; an earlier report in it is replaced.

        Returns:
            The folder.

        Raises:
            UsageError: it cannot be written, or holds other files.
        """
        folder: Path = _room().save(self, Path(out))
        return folder

    def figure(self, name: str) -> Figure:
        """A picture of the report as a matplotlib ``Figure``, to be changed and saved.

        Args:
            name: as in a report's folder, ``curvature``, ``robustness``, ``reliability`` or
                ``corruptions``; or as on its page, ``accuracies``, ``classes``, ``flatness`` or
                ``flatness-sweep``. For a report from a folder with a landscape also ``landscape``,
                or ``landscape-contour`` and ``landscape-surface``.

        Raises:
            UsageError: no such picture, or nothing was measured that it shows; says which there
                are.
        """
        figure: Figure = _room().figure(self, name)
        return figure
