"""Average flatness against the plain loop, on the same weight changes, in one run.

    python benchmarks/flatness.py [--only digits] [--repeats 3] [--draws 3]

The plain loop is what the published code does: one perturbed network after the other, whole PGD
runs in batches of 128 through the network as it stands, each with a backward pass into inputs and
weights, at the last iterate as well. It gets robaudit's weight changes and random starts, and keeps
the clean image as an iterate, so both compute the same number. A second row has it with frozen
weights, which spares the backward pass into them. The runs take turns, and each row is the fastest
of its repeats.

*Where the time goes* takes robaudit's share apart: the network's passes as it stands, with batch
norms folded, and in channels-last order as well.
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
from networks import cases
from torch.nn import functional as F

import robaudit as ra
from robaudit.attacks.balls import ascend, project, random_start
from robaudit.engine import Runner, accelerate, frozen
from robaudit.engine.folding import fold_batch_norm
from robaudit.flatness import average
from robaudit.flatness.weights import draw_for, movable_weights, on_sphere

XI, STEPS, BATCH = 0.5, 20, 128
RADII = {"digits": 0.15, "cnn-a": 2 / 255, "resnet-18": 8 / 255}


def timed(run):
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def plain(model, x, y, threat, draws, weight_gradients):
    """Mean robust loss under each of the first weight changes."""
    weights = movable_weights(model)
    means = []
    for j in range(draws):
        moved = copy.deepcopy(model).eval().requires_grad_(weight_gradients)
        nu = on_sphere(weights, XI, draw_for(0, "average", j))
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                if name in nu:
                    parameter.add_(nu[name])
        losses = []
        for start in range(0, len(x), BATCH):
            part = slice(start, start + BATCH)
            index = torch.arange(len(x))[part]
            losses.append(robust_losses(moved, x[part], y[part], index, threat, weight_gradients))
        means.append(float(torch.cat(losses).double().mean()))
    return means


def robust_losses(model, x, y, index, threat, published):
    with torch.no_grad():
        best = F.cross_entropy(model(x), y, reduction="none")
    adv = random_start(x, index, threat, 0, 0)
    for step in range(STEPS + 1):
        leaf = adv.clone().requires_grad_()
        loss = F.cross_entropy(model(leaf), y, reduction="none")
        best = torch.maximum(best, loss.detach())
        if step < STEPS or published:
            loss.sum().backward()
        if step < STEPS:
            adv = project(ascend(adv, leaf.grad, threat.eps / 4, threat), x, threat)
    return best


def compared(case, draws, repeats):
    threat = ra.ThreatModel("linf", RADII[case.name])
    model, x, y = case.model, case.x, case.y
    rows = {
        "plain loop, as published": lambda: plain(model, x, y, threat, draws, True),
        "plain loop, weights frozen": lambda: plain(model, x, y, threat, draws, False),
        "robaudit": lambda: (
            average(
                model, x, y, threat, xi=XI, perturbations=draws, steps=STEPS, reference=unperturbed
            ).perturbed
        ),
    }
    with frozen(model):
        unperturbed = ra.attacks.pgd(model, x, y, threat, steps=1)  # no row pays for a reference
    best: dict[str, tuple[float, object]] = {}
    for _ in range(repeats):
        for label, run in rows.items():
            spent, found = timed(run)
            if label not in best or spent < best[label][0]:
                best[label] = spent, found
    base, want = best["plain loop, as published"]
    print(f"{case.name}: {len(x)} images, {draws} weight changes, PGD-{STEPS}")
    for label, (spent, found) in best.items():
        off = max(abs(a - b) / abs(b) for a, b in zip(found, want, strict=True))
        print(
            f"  {label:28} {spent:8.2f} s   ratio {spent / base:.2f}   "
            f"largest difference of a robust loss {off:.1e}"
        )
    parts(model, x[:BATCH], y[:BATCH], repeats)
    print()


def parts(model, x, y, repeats):
    """Forward and backward passes of one batch."""
    with frozen(model):
        networks = {"as it stands": model}
        folded = fold_batch_norm(model, x[:2])
        if folded is not None:
            networks["batch norm folded"] = folded
        networks["as the engine runs it"] = accelerate(model, x.shape[1:]).forward
        best = dict.fromkeys(networks, float("inf"))
        for _ in range(5 * repeats):
            for label, forward in networks.items():
                runner = Runner(forward, torch.device("cpu"))
                spent, _ = timed(lambda runner=runner: runner.gradient(cross_entropy, x, y))
                best[label] = min(best[label], spent)
    words = ", ".join(f"{label} {1e6 * spent / len(x):.0f} us" for label, spent in best.items())
    print(f"  where the time goes: a pass forward and back, an image: {words}")


def cross_entropy(logits, y):
    return F.cross_entropy(logits, y, reduction="none")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", action="append", default=[])
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--draws", type=int, default=3)
    given = options.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads\n")
    for case in cases(given.only):
        compared(case, given.draws, given.repeats)


if __name__ == "__main__":
    main()
