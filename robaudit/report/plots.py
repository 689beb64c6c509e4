"""A report's curvature as a picture: what each layer adds to WCI, and the Hessian's spectrum."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robaudit.report.details import LayerRow, layer_rows, trace_symbol
from robaudit.report.naming import name_of
from robaudit.report.palette import BLUE, VERMILION
from robaudit.report.text import plain
from robaudit.schema import Measurement, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LAYERS = 30


def write_plots(report: Report, folder: Path) -> list[Path]:
    """Write ``curvature.svg`` and ``curvature.png``, or nothing where no curvature was measured.

    Left: contribution ``||W_k||_F sqrt(Tr(H_k))`` of each layer, with the standard error that its
    trace's gives. Right: spectral density on a log scale, with its standard error over probes and
    the extreme eigenvalues.
    """
    rows = layer_rows(report)
    trace = report.get("hessian.trace")
    density = trace.details.get("density") if trace else None
    drawn = [name for name, there in (("layers", rows), ("spectrum", density)) if there]
    if not drawn:
        return []
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = max(2.8, 0.9 + 0.22 * min(len(rows), _MOST_LAYERS))
    figure = Figure(figsize=(4.6 * len(drawn) + 0.6, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axis, name in zip(axes, drawn, strict=True):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        if name == "layers":
            _layers(axis, report, rows)
        else:
            assert isinstance(density, dict)
            _spectrum(axis, report, density)
    figure.suptitle(_text(name_of(report.subject)), fontsize=10)
    paths = [folder / "curvature.svg", folder / "curvature.png"]
    for path in paths:
        figure.savefig(path, dpi=150)
    return paths


def _layers(axis: Axes, report: Report, rows: list[LayerRow]) -> None:
    kept = sorted(rows, key=lambda row: row.contribution, reverse=True)[:_MOST_LAYERS]
    shown = [row for row in rows if row in kept][::-1]
    # d sqrt(t) = dt / (2 sqrt(t)), so a contribution's relative error is half its trace's.
    errors = [
        row.contribution * (row.standard_error or 0) / (2 * row.trace) if row.trace > 0 else 0
        for row in shown
    ]
    axis.barh(
        [_text(row.name) for row in shown],
        [row.contribution for row in shown],
        xerr=errors,
        color=BLUE,
        error_kw={"ecolor": VERMILION, "elinewidth": 1.5},
    )
    matrix = "G_k" if "G" in trace_symbol(report) else "H_k"
    wci = report.get("wci")
    assert wci is not None
    axis.set_xlabel(rf"$\|W_k\|_F\,\sqrt{{\mathrm{{Tr}}({matrix})}}$", fontsize=9)
    left = f", {len(rows) - len(shown)} smaller layers left out" if len(rows) > len(shown) else ""
    axis.set_title(f"WCI {wci.value:.4g} by layer (bars: one standard error){left}", fontsize=9)


def _spectrum(axis: Axes, report: Report, density: dict[str, Any]) -> None:
    grid, values = density["grid"], density["density"]
    floor = max(values) * 1e-6
    height = [max(value, floor) for value in values]
    errors = density.get("standard_error") or [None] * len(grid)
    axis.plot(grid, height, color=BLUE, linewidth=1.2, label="density")
    if all(isinstance(error, int | float) for error in errors):
        low = [max(v - e, floor) for v, e in zip(values, errors, strict=True)]
        high = [max(v + e, floor) for v, e in zip(values, errors, strict=True)]
        axis.fill_between(grid, low, high, color=BLUE, alpha=0.25, linewidth=0)
    for at, eigenvalue in enumerate(_extremes(report)):
        label = "extreme eigenvalues" if at == 0 else None
        axis.axvline(eigenvalue, color=VERMILION, linestyle="--", linewidth=1, label=label)
    axis.set_yscale("log")
    axis.set_xlabel("eigenvalue of the Hessian", fontsize=9)
    axis.set_ylabel("density", fontsize=9)
    axis.set_title("Spectrum of the robust loss", fontsize=9)
    axis.legend(fontsize=8, frameon=False)


def _extremes(report: Report) -> list[float]:
    found: list[Measurement | None] = [
        report.get("hessian.smallest"),
        report.get("hessian.largest"),
    ]
    return [m.value for m in found if m is not None and m.value is not None]


def _text(text: str) -> str:
    """Foreign text as matplotlib shows it: without control characters, dollars as themselves."""
    return plain(text).replace("$", r"\$")
