"""How far the estimators of layer traces are from the exact value after some seconds.

All on the same images, so that what is shown is the estimators' noise alone; the spread of the
images, which more probes do not lessen, is drawn as a line. The error after one probe is the root
mean square over seeds (for pooled probes: their standard deviation); it falls with the root of the
number of probes, which is what independent draws do and is not measured again. Seconds are measured
at one and at ``MORE`` probes, and lie on a line between.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from networks import Case
from torch import Tensor

import robaudit as ra

SEEDS, MORE = 8, 5
# Of Okabe & Ito's colours, those that colour-blind readers tell apart and that stand out from white
# and from black; shapes say the same again.
STYLES = {
    "mixed-class (gauss-newton)": ("#009E73", "o"),
    "output-space (hessian)": ("#CC79A7", "s"),
    "pooled Hutchinson": ("#D55E00", "^"),
}
EXACT, GREY = "#0072B2", "#808080"


@dataclass(frozen=True)
class Measured:
    """A network's exact traces, and pooled probes.

    Attributes:
        seconds: of the exact traces.
        exact: ``(layers,)``.
        per_example: ``(n, layers)``.
        probes: ``(probes, layers)``, and ``one``, the seconds of each.
    """

    case: Case
    seconds: float
    exact: Tensor
    per_example: Tensor
    probes: Tensor
    one: float


@dataclass(frozen=True)
class Curve:
    """Relative errors after one probe, and seconds: ``first`` for one, ``each`` for any more."""

    worst: float
    total: float
    first: float
    each: float


@dataclass(frozen=True)
class Curves:
    name: str
    seconds: float
    spread: tuple[float, float]  # of the images: the worst layer's and the total's
    of: dict[str, Curve]


def curves(measured):
    case, exact = measured.case, measured.exact
    found = {}
    for label, estimator in zip(STYLES, ("gauss-newton", "hessian"), strict=False):
        runs = [timed(case, estimator, 1, seed) for seed in range(SEEDS)]
        more = min(timed(case, estimator, MORE, seed)[1] for seed in range(2))
        first = min(spent for _, spent in runs)
        errors = relative(torch.stack([traces for traces, _ in runs]) - exact, exact)
        found[label] = Curve(*errors, first, max(0.0, more - first) / (MORE - 1))
    pooled = relative(measured.probes - measured.probes.mean(0), exact)
    found["pooled Hutchinson"] = Curve(*pooled, measured.one, measured.one)
    rows = measured.per_example
    spread = relative((rows - rows.mean(0)) / len(rows) ** 0.5, exact)
    for label, curve in found.items():
        print(
            f"{case.name}, {label}: one probe {curve.first:.2f} s, each more {curve.each:.2f} s, "
            f"error {curve.worst:.1%} in the worst layer, {curve.total:.1%} of the total"
        )
    return Curves(f"{case.name}, {len(case.x)} images", measured.seconds, spread, found)


def timed(case, estimator, probes, seed):
    start = time.perf_counter()
    found = ra.curvature.layer_traces(
        case.model, case.x, case.y, estimator=estimator, probes=probes, seed=seed
    )
    spent = time.perf_counter() - start
    return torch.tensor([layer.trace for layer in found.layers.values()]).double(), spent


def relative(errors, exact):
    """Root mean square of ``(runs, layers)``: of the worst layer, and of the total."""
    worst = (errors.square().mean(0).sqrt() / exact).max()
    total = errors.sum(1).square().mean().sqrt() / exact.sum()
    return float(worst), float(total)


def draw(networks, path):
    """A row for each network; readable on white and on black."""
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": "robaudit", "font.size": 8, "text.color": GREY, "axes.edgecolor": GREY,
        "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY,
    }  # fmt: skip
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(6.4, 2.1 * len(networks) + 0.4), layout="constrained")
        panels = figure.subplots(len(networks), 2, squeeze=False, sharey="row")
        for row, network in zip(panels, networks, strict=True):
            for at, (axis, kind) in enumerate(zip(row, ("worst layer", "total"), strict=True)):
                panel(axis, network, at)
                axis.set_title(f"{network.name}: {kind}", fontsize=8)
            row[0].set_ylabel("relative error")
        for axis in panels[-1]:
            axis.set_xlabel("seconds")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3, frameon=False, labelcolor=GREY
        )
        figure.savefig(path, metadata={"Date": None}, transparent=True)


def panel(axis, network, at):
    probes = torch.logspace(0, 4, 9, dtype=torch.float64).round()
    for label, (color, marker) in STYLES.items():
        curve = network.of[label]
        spent = curve.first + curve.each * (probes - 1)
        error = (curve.worst, curve.total)[at] / probes.sqrt()
        axis.loglog(spent, error, color=color, marker=marker, markersize=3, lw=1, label=label)
    axis.axvline(network.seconds, color=EXACT, lw=1.5, label="exact: no such error")
    axis.axhline(network.spread[at], color=GREY, lw=0.8, ls=":", label="the images' spread")
    axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axis.spines[["top", "right"]].set_visible(False)
    axis.patch.set_alpha(0)
