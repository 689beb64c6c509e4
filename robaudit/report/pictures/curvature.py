"""Curvature: what each layer adds to WCI, and the spectrum of the Hessian."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robaudit.report.details import LayerRow, SpectralDensity, density, layer_rows, number_list
from robaudit.report.details import trace_symbol as symbol_of
from robaudit.report.pictures.drawing import line, logarithmic, new_figure, style
from robaudit.report.pictures.palette import BLUE, VERMILION
from robaudit.report.text import plain
from robaudit.schema import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LAYERS, _LONGEST_NAME = 30, 22
_SPECTRUM = 2.2  # inches
_SMALLEST = 1e-6  # of the largest density


@style()
def curvature(report: Report, *, layers: bool = True, spectrum: bool = True) -> Figure | None:
    """The layers of WCI above the spectrum of the Hessian, each where it was measured.

    Layers: the contribution ``||W_k||_F sqrt(Tr(H_k))`` of each, with the standard error that
    follows from its trace's. Spectrum: the density on a log scale, with its standard error over
    probes and the extreme eigenvalues.

    Args:
        layers: whether to draw the layers.
        spectrum: whether to draw the spectrum.
    """
    rows = layer_rows(report) if layers else []
    found = density(report) if spectrum else None
    heights = [0.7 + 0.17 * min(len(rows), _MOST_LAYERS)] if rows else []
    if found is not None:
        heights.append(_SPECTRUM)
    if not heights:
        return None
    figure = new_figure(sum(heights))
    axes = list(figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0])
    if rows:
        _draw_layers(axes[0], report, rows)
    if found is not None:
        _draw_spectrum(axes[-1], report, found)
    return figure


def _draw_layers(axis: Axes, report: Report, rows: list[LayerRow]) -> None:
    largest = sorted(rows, key=lambda row: row.contribution, reverse=True)[:_MOST_LAYERS]
    shown = [row for row in rows if row in largest]
    # d sqrt(t) = dt / (2 sqrt(t)), so a contribution's relative error is half its trace's.
    errors = [
        row.contribution * (row.standard_error or 0) / (2 * row.trace) if row.trace > 0 else 0
        for row in shown
    ]
    axis.barh(
        range(len(shown)),
        [row.contribution for row in shown],
        xerr=errors,
        color=BLUE,
        error_kw={"ecolor": VERMILION, "elinewidth": 1.2},
    )
    names = [plain(row.name) for row in shown]
    # The end of a long name tells the layer.
    cut = [n if len(n) <= _LONGEST_NAME else f"…{n[1 - _LONGEST_NAME :]}" for n in names]
    axis.set_yticks(range(len(shown)), cut)
    axis.invert_yaxis()
    axis.set_xlabel(f"‖W_k‖_F √{symbol_of(report)}, bars: one standard error")
    wci = report.get("wci")
    assert wci is not None
    left = f", {len(rows) - len(shown)} smaller layers left out" if len(rows) > len(shown) else ""
    axis.set_title(f"WCI {wci.value:.4g} by layer{left}")


def _draw_spectrum(axis: Axes, report: Report, found: SpectralDensity) -> None:
    import numpy as np

    trace = report.get("hessian.trace")
    assert trace is not None
    errors = number_list(trace.details["density"].get("standard_error"))
    values = np.array(found.density)
    floor = (values.max() or 1.0) * _SMALLEST
    band = None
    if errors is not None and len(errors) == len(values):
        band = (values - errors).clip(floor), (values + errors).clip(floor)
    line(axis, found.grid, values.clip(floor), band, (BLUE, "-", ""), "density")
    ends = [report.get(f"hessian.{name}") for name in ("smallest", "largest")]
    for at, m in enumerate(one for one in ends if one is not None and one.value is not None):
        label = "extreme eigenvalues" if at == 0 else None
        assert m.value is not None
        axis.axvline(m.value, color=VERMILION, linestyle="--", linewidth=1, label=label)
    logarithmic(axis, "y")
    axis.set_xlabel("eigenvalue of the Hessian of the robust loss")
    axis.set_ylabel("density")
    axis.legend()
