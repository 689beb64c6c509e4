"""The default spectrum: what its runs share, and what it costs.

    python benchmarks/spectrum.py [--network NAME ...] [--images N]

*Separate runs*: Lanczos from one random start until the five largest and the smallest eigenvalue
have residuals within 1e-3 of themselves, for 40 products at least, and 40 products from each of
four further starts for the density; counted, the latter not run. *Separate runs, the same density*:
the same with the nodes and probes of the default. *Shared*: ``robaudit.curvature.spectrum`` at its
defaults, where the same products give both. At PGD-10 examples.
"""

from __future__ import annotations

import argparse
import time

import torch
from curvature import EPS
from networks import Case, cases, cifar, real_data

import robaudit as ra
from robaudit.curvature.products import hessian_product
from robaudit.curvature.thick_restart import extremes
from robaudit.engine import frozen, generator

TOP, TOLERANCE, MOST = 5, 1e-3, 80
BEFORE, DEFAULT = (5, 40), (3, 20)  # probes, and products of each
IMAGES = {"digits": 200, "cnn-a": 200, "preact-resnet-18": 4}


def preact():
    """The network that `ROBAUDIT_REAL_DATA` has, if it is there."""
    folder = real_data()
    file = folder / "checkpoints" / "preact_resnet18_cifar10_linf8.pt" if folder else None
    if file is None or not file.exists():
        return None
    model = ra.load(file, normalize="cifar10-moments", device="cpu")
    return Case("preact-resnet-18", model, *cifar(folder, 64))


def alone(model, x, y, nodes):
    """Products of one run from a random start, to the tolerance and for ``nodes`` at least."""
    like = next(model.parameters())
    dim = sum(parameter.numel() for parameter in model.parameters())
    signs = torch.randint(2, (dim,), generator=generator(0, "lanczos", 0)) * 2 - 1
    with frozen(model):
        product = hessian_product(model, x, y)
        ask = {"largest": TOP, "smallest": 1, "tolerance": TOLERANCE, "at_least": nodes}
        return extremes(product, signs.to(like), MOST, **ask).products


def compare(case, n):
    threat = ra.ThreatModel("linf", EPS.get(case.name, 8 / 255))
    model, y = case.model, case.y[:n]
    x = ra.attacks.pgd(model, case.x[:n], y, threat, steps=10).x
    print(f"{case.name}: {n} images, {sum(p.numel() for p in model.parameters())} parameters")
    counts = []
    for name, (probes, nodes) in {"": BEFORE, ", the same density": DEFAULT}.items():
        counts.append(alone(model, x, y, nodes) + (probes - 1) * nodes)
        print(f"  {'separate runs' + name:34s} {counts[-1]:4d} products", flush=True)
    start = time.process_time()
    found = ra.curvature.spectrum(model, x, y)
    spent = time.process_time() - start
    print(
        f"  {'shared':34s} {found.products:4d} products, {spent:.1f} CPU seconds; largest "
        f"{found.largest[0]:.4f} +- {found.residuals[0]:.1g}, smallest {found.smallest:.4f} +- "
        f"{found.smallest_residual:.1g}, converged: {found.converged}"
    )
    one = ra.curvature.largest_eigenvalue(model, x, y, relative=True)
    print(f"  {'largest relative eigenvalue':34s} {one.products:4d} products")
    print(f"  products against separate runs: {found.products / counts[0]:.2f}\n", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", action="append", choices=list(IMAGES), default=[])
    parser.add_argument("--images", type=int)
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads\n")
    wanted = options.network or list(IMAGES)
    found = [*cases([name for name in wanted if name != "preact-resnet-18"] or ["none"])]
    if "preact-resnet-18" in wanted and (network := preact()):
        found.append(network)
    for case in found:
        compare(case, options.images or IMAGES[case.name])


if __name__ == "__main__":
    main()
