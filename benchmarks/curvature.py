"""Exact layer traces and Lanczos against PyHessian, in one run on one machine.

    python benchmarks/curvature.py [--network NAME ...] [--picture PATH]

On the sample network `robust.pt` with the 500 test digits and, where ``ROBAUDIT_REAL_DATA`` names
the folder that holds them, on a published CIFAR-10 network (CNN-A) with 1000 images and on the
ResNet-18 that comes with `pyautoattack` with 32. Traces are of clean images, since their cost does
not depend on them; eigenvalues are of PGD-10's, since their number of products does.

*At defaults*: all layer traces and WCI by ``robaudit``, against one call of PyHessian's
``trace()``, which gives the total alone and stops where chance has it; so three seeds. *At equal
error*: the same against as many pooled Hutchinson probes as one percent of every layer's trace
would need, extrapolated from the variance of ``PROBES`` probes and the seconds of one of
PyHessian's. *Eigenvalue*: see `eigenvalues.py`. *Curves*: see `error_curves.py`. Other libraries
with exact traces, time, memory and error against float64: see `exact_peers.py`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import eigenvalues
import error_curves
import pooled
import torch
from networks import Case, cases

import robaudit as ra

PROBES, SEEDS = 30, 3
EPS = {"digits": 0.15, "cnn-a": 2 / 255, "resnet-18": 8 / 255}


def seconds(run, repeats):
    """The shortest of some runs: what the machine can do when nothing else runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return min(times), result


def compare(case):
    """Print the ratios; returns what the curves are made of."""
    model, x, y = case.model, case.x, case.y
    ra.curvature.wci(model, x[:2], y[:2])  # whatever is set up once
    ours, found = seconds(lambda: ra.curvature.wci(model, x, y), 5)
    theirs = [pooled.trace(model, x, y, seed) for seed in range(SEEDS)]
    layers = found.traces.layers
    values = pooled.probe_values(model, x, y, list(layers), PROBES)
    one = min(spent / len(probes) for probes, spent in theirs)
    exact = torch.tensor([layer.trace for layer in layers.values()], dtype=torch.float64)
    needed = (values.std(0) / (0.01 * exact)) ** 2
    middle = statistics.median(spent for _, spent in theirs)
    worst = float(needed.max())
    print(f"{case.name}: {len(x)} images, {len(layers)} layers, {found.traces.quantity} traces")
    print(f"  robaudit, all layer traces and WCI      {ours:8.2f} s   total {exact.sum():.1f}")
    for seed, (probes, spent) in enumerate(theirs):
        print(
            f"  PyHessian, total trace, defaults, seed {seed} {spent:7.2f} s   "
            f"total {statistics.fmean(probes):.1f} after {len(probes)} probes"
        )
    print(f"  ratio at defaults, the median seed      1/{middle / ours:.1f}")
    print(
        f"  1 % of every layer by pooled probes     {worst:8.0f} of {one:.2f} s "
        f"({list(layers)[int(needed.argmax())]})"
    )
    print(f"  ratio at equal error (extrapolated)     1/{worst * one / ours:.0f}")
    return error_curves.Measured(case, ours, exact, found.traces.per_example, values, one)


def attacked(case):
    n = 8 if case.name == "resnet-18" else len(case.x)
    x, y = case.x[:n], case.y[:n]
    threat = ra.ThreatModel("linf", EPS[case.name])
    return Case(case.name, case.model, ra.attacks.pgd(case.model, x, y, threat, steps=10).x, y)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", action="append", choices=list(EPS), default=[])
    parser.add_argument("--picture", type=Path, help="draw the error over time into this SVG")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads\n")
    measured = []
    for case in cases(options.network):
        measured.append(compare(case))
        eigenvalues.compare(attacked(case))
    if options.picture:
        error_curves.draw([error_curves.curves(one) for one in measured], options.picture)


if __name__ == "__main__":
    main()
