"""WCI over the sample epochs, by exact traces and by 20 pooled Hutchinson probes.

    python benchmarks/stability.py

Prints the table kept in `results/stability.txt`, and writes the picture of
`docs/explanation/wci-stability.md`. Five seeds: each starts PGD at other points and draws other
probes. Both estimators of a seed see the same adversarial examples, so that whatever they differ by
is the estimator's.

A pooled probe is PyHessian's: one Rademacher vector `v` over all parameters, one product `H v`, and
for layer k the part `v_k . (H v)_k`; a layer's trace is the mean of its parts over the probes. That
mean may be negative. Its square root is then `nan` in numpy and torch, and so is WCI: such a value
is counted and left out, not mended.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import torch

import robaudit as ra
from robaudit.checkpoints import samples_dir
from robaudit.curvature.products import hessian_product
from robaudit.engine import frozen, seed_for

SEEDS, PROBES, STEPS, EPS = 5, 20, 10, 0.15
PICTURE = Path(__file__).parents[1] / "docs" / "explanation" / "wci-stability.svg"
# Blue and vermilion of Okabe & Ito, which colour-blind readers tell apart.
EXACT, POOLED = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class Run:
    """One epoch with one seed; ``pooled`` is ``nan`` where a layer's mean is negative."""

    exact: float
    standard_error: float
    pooled: float
    negative: int

    @property
    def error(self) -> float:
        return self.pooled - self.exact


def measure():
    """Epoch to its runs, one a seed."""
    examples = ra.load_examples("digits", split="test")
    threat = ra.ThreatModel("linf", EPS)
    runs = {}
    for path in sorted((samples_dir() / "epochs").glob("epoch_*.pt")):
        model = ra.load(path, device="cpu")
        epoch = int(path.stem.rpartition("_")[2])
        for seed in range(SEEDS):
            adversarial = ra.attacks.pgd(
                model, examples.x, examples.y, threat, steps=STEPS, step_size=EPS / 4, seed=seed
            )
            index = ra.curvature.wci(model, adversarial.x, examples.y, estimator="exact")
            names = [layer.name for layer in index.layers]
            draw = seed_for(seed, "pooled probes", epoch)
            traces = pooled_traces(model, adversarial.x, examples.y, names, draw)
            pooled = sum(
                layer.frobenius * math.sqrt(trace) if trace >= 0 else math.nan
                for layer, trace in zip(index.layers, traces, strict=True)
            )
            negative = sum(trace < 0 for trace in traces)
            run = Run(index.value, index.standard_error, pooled, negative)
            runs.setdefault(epoch, []).append(run)
    return runs, len(examples), len(names)


def pooled_traces(model, x, y, layers, seed):
    """The mean over ``PROBES`` probes of every layer's part, as PyHessian would split its trace."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    sums = torch.zeros(len(layers), dtype=torch.float64)
    with frozen(model):
        product = hessian_product(model, x, y)
        for _ in range(PROBES):
            v = (torch.randint(2, (sum(sizes.values()),), generator=generator) * 2 - 1).float()
            pieces = (v * product(v)).double().split([*sizes.values()])
            parts = dict(zip(sizes, pieces, strict=True))
            sums += torch.stack([parts[f"{name}.weight"].sum() for name in layers])
    return (sums / PROBES).tolist()


def valid(values):
    return [value for value in values if not math.isnan(value)]


def mean_square(values):
    return fmean(value**2 for value in values)


def table(runs, layers):
    """The epochs, the steps between them, and what part of the pooled steps is the estimator's."""
    lines = [
        "                 exact traces               20 pooled probes",
        "epoch     mean    s.d.   s.e.        mean    s.d.   error   none   negative",
    ]
    for epoch, found in runs.items():
        exact, pooled = [run.exact for run in found], valid(run.pooled for run in found)
        off = mean_square(valid(run.error for run in found)) ** 0.5
        error = fmean(run.standard_error for run in found)
        lines.append(
            f"{epoch:5d} {fmean(exact):8.1f} {stdev(exact):7.1f} {error:6.1f}    "
            f"{fmean(pooled):8.1f} {stdev(pooled):7.1f} {off:7.1f} {SEEDS - len(pooled):6d} "
            f"{sum(run.negative for run in found):5d} of {SEEDS * layers}"
        )
    lines += ["", "step          exact      pooled, five seeds     wrong sign   estimator's part"]
    noises, changes = [], []
    for (a, first), (b, second) in zip(runs.items(), list(runs.items())[1:], strict=False):
        exact = [y.exact - x.exact for x, y in zip(first, second, strict=True)]
        pooled = [y.pooled - x.pooled for x, y in zip(first, second, strict=True)]
        known = valid(pooled)
        noise = sum(mean_square(valid(run.error for run in found)) for found in (first, second))
        change = mean_square(exact)
        noises.append(noise)
        changes.append(change)
        wrong = sum(x * y < 0 for x, y in zip(exact, pooled, strict=True))
        lines.append(
            f"{f'{a} to {b}':12s} {fmean(exact):+6.1f}    {min(known):+7.1f} to {max(known):+7.1f}"
            f"     {wrong:4d} of {len(known)}      {noise / (noise + change):6.1%}"
        )
    errors = valid(run.error / run.exact for found in runs.values() for run in found)
    starts = [stdev(run.exact for run in found) / found[0].exact for found in runs.values()]
    every = sum(noises) / (sum(noises) + sum(changes))
    later = sum(noises[1:]) / (sum(noises[1:]) + sum(changes[1:]))
    lines += [
        "",
        f"all steps: {every:.1%} of the pooled mean square is the estimator's; "
        f"without the first: {later:.1%}",
        f"root mean square relative error of a pooled WCI: {mean_square(errors) ** 0.5:.1%}; "
        f"relative s.d. of an exact one over PGD starts: {mean_square(starts) ** 0.5:.1%}",
    ]
    return "\n".join(lines)


def picture(runs):
    import matplotlib
    from matplotlib.figure import Figure

    epochs, places = list(runs), range(len(runs))
    with matplotlib.rc_context({"svg.hashsalt": "robaudit", "font.size": 8}):
        figure = Figure(figsize=(3.6, 4.4), layout="constrained")
        above, below = figure.subplots(2, sharex=True, height_ratios=(3, 2))
        for seed in range(SEEDS):
            rows = [found[seed] for found in runs.values()]
            means = [fmean(run.exact for run in found) for found in runs.values()]
            for color, marker, size, shift, label, values, off in (
                (POOLED, "x", 4, 0.12, f"{PROBES} pooled probes, {SEEDS} seeds",
                 [run.pooled for run in rows], [run.error / run.exact for run in rows]),
                (EXACT, "o", 2.5, -0.12, f"exact traces, {SEEDS} seeds",
                 [run.exact for run in rows],
                 [run.exact / mean - 1 for run, mean in zip(rows, means, strict=True)]),
            ):  # fmt: skip
                style = {"color": color, "marker": marker, "markersize": size}
                above.plot(places, values, linewidth=0.7, label=None if seed else label, **style)
                beside = [place + shift for place in places]
                below.plot(beside, [100 * one for one in off], linestyle="", **style)
        above.set_ylabel("WCI on 500 test digits")
        above.set_ylim(bottom=0)
        above.legend(frameon=False, loc="lower right")
        below.axhline(0, color="0.6", linewidth=0.6, zorder=0)
        below.set_ylabel("deviation (per cent)")
        below.set_xlabel("epoch")
        below.set_xticks(places, [str(epoch) for epoch in epochs])
        for axis in (above, below):
            axis.spines[["top", "right"]].set_visible(False)
        figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    start = time.perf_counter()
    runs, n, layers = measure()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads, ", end="")
    print(f"{time.perf_counter() - start:.0f} s")
    print(
        f"{n} test digits, linf eps {EPS}, PGD-{STEPS} step eps/4, {layers} layers, seeds 0 to 4\n"
    )
    print(table(runs, layers))
    picture(runs)
