"""Certified accuracy of a published network, beside what has been published for it.

    python benchmarks/certified.py [--n 200] [--budget 30] [--methods crown alpha branch]

CNN-A, trained adversarially, on the first CIFAR-10 test images in linf at 2/255, from the folder
that ``ROBAUDIT_REAL_DATA`` names. Images that the fast tier breaks are not tried. Published for the
first 200: beta-CROWN certifies 45.5 % (Wang et al., 2021); attacks leave 50.0 %.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import torch
from networks import cnn_a

import robaudit as ra


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--budget", type=float, default=30.0)
    parser.add_argument("--methods", nargs="+", default=["crown", "alpha", "branch"])
    options = parser.parse_args()
    case = cnn_a(options.n)
    if case is None:
        parser.error("ROBAUDIT_REAL_DATA names no folder with the network and its images")
    model, x, y = case.model, case.x, case.y
    threat = ra.ThreatModel("linf", 2 / 255)
    left = ra.attacks.fast(model, x, y, threat).robust
    print(f"{len(x)} images, {torch.get_num_threads()} threads: fast leaves {percent(left)}")
    for method in options.methods:
        start = time.perf_counter()
        found = ra.certify(model, x, y, threat, method=method, budget=options.budget, tried=left)
        spent = time.perf_counter() - start
        by = Counter(name for name in found.method if name)
        print(
            f"{method:7s} certifies {percent(found.certified)} in {spent:6.0f} s, "
            f"{spent / int(left.sum()):.2f} s an image tried; {dict(by)}; "
            f"{int(found.splits.sum())} branches split"
        )


def percent(rows: torch.Tensor) -> str:
    return f"{100 * float(rows.double().mean()):.1f} %"


if __name__ == "__main__":
    main()
