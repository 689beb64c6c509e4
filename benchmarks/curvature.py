"""Exact layer traces against PyHessian's total trace, in one run on one machine.

    python benchmarks/curvature.py

On the sample network `robust.pt` with the 500 test digits and, where ``ROBAUDIT_REAL_DATA`` names
the folder that holds them, on a published CIFAR-10 network (CNN-A) with 1000 images. Clean images:
the cost does not depend on them.

Two ratios a network. *At defaults*: all layer traces and WCI by ``robaudit``, against one call of
PyHessian's ``trace()``, which gives the total alone. *At equal error*: the same against as many
pooled Hutchinson probes as one percent of every layer's trace would need, extrapolated from the
measured variance of ``PROBES`` probes and the measured time of one.
"""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import torch
from torch import nn

import robaudit as ra
from robaudit.checkpoints import samples_dir
from robaudit.curvature.products import hessian_product

PROBES, REPEATS = 30, 5


def seconds(run, repeats):
    """The shortest of some runs: what the machine can do when nothing else runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - start)
    return min(times), result


def pyhessian_trace(model, x, y):
    from pyhessian import hessian

    model.requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probes = hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False).trace()
    model.zero_grad(set_to_none=True)
    model.requires_grad_(False)
    return probes


def pooled_probes(model, x, y):
    """Standard deviation of one pooled Hutchinson probe by parameter, and the seconds it takes."""
    product = hessian_product(model, x, y)
    names = [name for name, _ in model.named_parameters()]
    sizes = [p.numel() for p in model.parameters()]
    rows, spent = [], []
    for probe in range(PROBES):
        signs = torch.randint(2, (sum(sizes),), generator=torch.Generator().manual_seed(probe))
        v = (signs * 2 - 1).float()
        start = time.perf_counter()
        parts = (v * product(v)).split(sizes)
        spent.append(time.perf_counter() - start)
        rows.append([float(part.double().sum()) for part in parts])
    deviations = torch.tensor(rows, dtype=torch.float64).std(0).tolist()
    return dict(zip(names, deviations, strict=True)), min(spent)


def compare(name, model, x, y):
    ours, found = seconds(lambda: ra.curvature.wci(model, x, y), REPEATS)
    torch.manual_seed(0)
    theirs, probes = seconds(lambda: pyhessian_trace(model, x, y), 1)
    spread, one = pooled_probes(model, x, y)
    needed = {
        layer: (spread[f"{layer}.weight"] / (0.01 * trace.trace)) ** 2
        for layer, trace in found.traces.layers.items()
    }
    worst = max(needed, key=needed.get)
    print(f"{name}: {len(x)} images, {len(needed)} layers")
    print(f"  robaudit, all layer traces and WCI   {ours:8.2f} s   total {found.traces.total:.1f}")
    total = sum(probes) / len(probes)
    print(f"  PyHessian, total trace, its defaults {theirs:8.2f} s   total {total:.1f}", end="")
    print(f" after {len(probes)} probes, normalisation and biases included")
    print(f"  ratio at defaults                    1/{theirs / ours:.0f}")
    print(f"  1 % of every layer by pooled probes: {needed[worst]:.0f} of {one:.2f} s ({worst})")
    print(f"  ratio at equal error (extrapolated)  1/{needed[worst] * one / ours:.0f}\n")


def cnn_a(folder):
    import numpy as np

    networks = Path(__file__).parents[1] / "tests" / "support" / "published_networks.py"
    model = ra.load(
        folder / "checkpoints" / "sdp_cifar_cnn_a_adv.model",
        arch=f"{networks}:cnn_a",
        normalize="0.485,0.456,0.406;0.225,0.225,0.225",
        device="cpu",
    )
    data = np.load(folder / "cifar10_test_first1017.npz")
    x = torch.tensor(data["x"][:1000]).float() / 255
    return model, x, torch.tensor(data["y"][:1000]).long()


if __name__ == "__main__":
    print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads\n")
    digits = ra.load_examples("digits")
    compare(
        "digits, robust.pt", ra.load(samples_dir() / "robust.pt", device="cpu"), digits.x, digits.y
    )
    real = os.environ.get("ROBAUDIT_REAL_DATA")
    if real:
        compare("CIFAR-10, CNN-A", *cnn_a(Path(real)))
