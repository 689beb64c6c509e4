"""Average and worst-case flatness against plain loops, same weight changes, in one run.

    python benchmarks/flatness.py [--only digits] [--repeats 3] [--draws 3] [--device cpu]

The plain loops are what the published code does: one original network after the other, in
batches of 128, with a backward pass into inputs and weights in every step of PGD, at the last
iterate as well, and in every pass of the joint ascent. They get robaudit's weight changes and
starts, and keep the clean image as an iterate, so that both compute the same number; a difference
above three thousandths stops the run. The worst case is compared in float32: where robaudit takes
a faster arithmetic for the joint ascent, its signs of small gradients are others from the first
pass on, so that its images end elsewhere, and the mean difference of their losses is held against
its standard error. A second row of the average has the plain loop with frozen weights, which spares
the backward pass into them; two more have one perturbed network in a pass and all of them, in place
of what robaudit chooses on the device. The runs take turns, and each row is the fastest of its
repeats. Images come in multiples of 64, robaudit's tile: fewer would be filled up.

*Where the time goes* takes robaudit's share apart: the original network's passes, those with batch
norms folded, and as the engine runs it.
"""

from __future__ import annotations

import argparse
import copy
import time
from unittest import mock

import torch
from networks import cases, cifar, real_data
from torch.nn import functional as F

import robaudit as ra
from robaudit.engine import Runner, accelerate, arithmetic, frozen
from robaudit.engine.folding import fold_batch_norm
from robaudit.engine.projections import ascend, project, random_start
from robaudit.flatness import average, worst
from robaudit.flatness.joint_ascent import JointAscent
from robaudit.flatness.weights import draw_for, in_ball, movable_weights, on_sphere
from robaudit.protocols import STUTZ_STEP_OVER_EPS

XI, STEPS, BATCH = 0.5, 20, 128
WORST_XI, PASSES, WEIGHT_STEP = 0.00075, 10, 0.01
RADII = {"digits": 0.15, "cnn-a": 2 / 255, "resnet-18": 8 / 255}
IMAGES = {"digits": 256, "cnn-a": 256, "resnet-18": 64}
ALLOWED = 3e-3  # rounding turns two gradient signs in a thousand, in the plain loop as well
SIGMAS = 4  # of a mean difference over images


def timed(run):
    start = time.perf_counter()
    found = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def plain_average(model, x, y, threat, draws, weight_gradients):
    """Mean robust loss under each of the first weight changes."""
    weights = movable_weights(model)
    means = []
    for j in range(draws):
        nu = on_sphere(weights, XI, draw_for(0, "average", j))
        network = moved(model, nu).requires_grad_(weight_gradients)
        losses = []
        for start in range(0, len(x), BATCH):
            part = slice(start, start + BATCH)
            index = torch.arange(len(x))[part]
            losses.append(robust_losses(network, x[part], y[part], index, threat, weight_gradients))
        means.append(float(torch.cat(losses).double().mean()))
    return means


def moved(model, nu):
    found = copy.deepcopy(model).eval()
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name in nu:
                parameter.add_(nu[name])
    return found


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
            adv = project(ascend(adv, leaf.grad, threat.eps / 4, threat.norm), x, threat)
    return best


def plain_worst(model, x, y, threat):
    """Each image's loss at the last weights of one joint ascent, which step after each batch."""
    weights = movable_weights(model)
    nu = in_ball(weights, WORST_XI, draw_for(0, "worst", 0))
    adv = random_start(x, torch.arange(len(x)), threat, 0, 0)
    images, batches, labels = (list(torch.split(part, BATCH)) for part in (x, adv, y))
    for _ in range(PASSES):
        for at, batch in enumerate(batches):
            network = moved(model, nu).requires_grad_(True)
            leaf = batch.clone().requires_grad_()
            F.cross_entropy(network(leaf), labels[at], reduction="sum").backward()
            up = ascend(batch, leaf.grad, STUTZ_STEP_OVER_EPS * threat.eps, threat.norm)
            batches[at] = project(up, images[at], threat)
            for name, parameter in network.named_parameters():
                if name in nu:
                    slope, radius = parameter.grad, WORST_XI * weights[name].norm()
                    up = nu[name] + WEIGHT_STEP * weights[name].norm() * slope / slope.norm()
                    nu[name] = up * (radius / up.norm()).clamp_max(1)
    with torch.no_grad():
        logits = torch.cat([moved(model, nu)(batch) for batch in batches])
    return F.cross_entropy(logits.double(), y, reduction="none")


def robaudit_worst(model, x, y, threat, precision, reference):
    """The same losses of robaudit, which reports their mean."""
    kept, run = [], JointAscent.run_batch_by_batch

    def recorded(*given):
        kept.extend(run(*given))
        return kept

    settings = {"protocol": "stutz2021", "restarts": 1, "passes": PASSES, "reference": reference}
    with mock.patch.object(JointAscent, "run_batch_by_batch", recorded):
        worst(model, x, y, threat, precision=precision, **settings)
    return kept[0].losses


def compared(name, model, x, y, draws, repeats):
    threat = ra.ThreatModel("linf", RADII[name])
    with frozen(model):
        unperturbed = ra.attacks.pgd(model, x, y, threat, steps=1)  # no row pays for a reference
    own = {"xi": XI, "steps": STEPS, "reference": unperturbed}

    def robaudit(stack):
        found = average(model, x, y, threat, perturbations=draws, stack=stack, **own)
        for note in found.notes:
            print(f"    note: {note}")
        return found.perturbed

    print(f"{name}: {len(x)} images")
    table(
        f"average flatness: {draws} weight changes, PGD-{STEPS}",
        {
            "plain loop, as published": lambda: plain_average(model, x, y, threat, draws, True),
            "plain loop, weights frozen": lambda: plain_average(model, x, y, threat, draws, False),
            "robaudit": lambda: robaudit("auto"),
            "robaudit, one in a pass": lambda: robaudit(1),
            "robaudit, all in a pass": lambda: robaudit(draws),
        },
        repeats,
    )
    table(
        f"worst-case flatness as published: 1 restart, {PASSES} passes",
        {
            "plain loop, as published": lambda: plain_worst(model, x, y, threat),
            "robaudit, float32": lambda: robaudit_worst(model, x, y, threat, "fp32", unperturbed),
            "robaudit": lambda: robaudit_worst(model, x, y, threat, "auto", unperturbed),
        },
        repeats,
    )
    parts(model, x[:BATCH], y[:BATCH], repeats)
    print(flush=True)


def table(title, rows, repeats):
    best = {}
    for _ in range(repeats):
        for label, run in rows.items():
            spent, found = timed(run)
            if label not in best or spent < best[label][0]:
                best[label] = spent, found
    base, want = best["plain loop, as published"]
    print(f"  {title}")
    for label, (spent, found) in best.items():
        off, error = apart(found, want)
        noise = "" if off < ALLOWED or not error else f", {off / error:.1f} standard errors"
        print(
            f"    {label:28} {spent:8.2f} s   ratio {spent / base:.2f}   "
            f"largest difference of a robust loss {off:.1e}{noise}"
        )
        if off >= ALLOWED and ("float32" in label or off > SIGMAS * error):
            raise SystemExit("the two do not compute the same")


def apart(found, want):
    """The largest relative difference of means; of losses of images also its standard error."""
    if isinstance(want, list):
        return max(abs(a - b) / abs(b) for a, b in zip(found, want, strict=True)), 0.0
    differences, mean = found - want, float(want.mean())
    error = float(differences.std()) / len(differences) ** 0.5
    return abs(float(differences.mean())) / mean, error / mean


def parts(model, x, y, repeats):
    """Forward and backward passes of one batch."""
    with frozen(model):
        networks = {"original": model}
        folded = fold_batch_norm(model, x[:2])
        if folded is not None:
            networks["batch norm folded"] = folded.network
        form = accelerate(model, x.shape[1:], examples=x)
        networks["as the engine runs it"] = form.forward
        best = dict.fromkeys(networks, float("inf"))
        for _ in range(2 * repeats):
            for label, forward in networks.items():
                precision = form.precision if forward is form.forward else "fp32"
                runner = Runner(forward, x.device, precision=precision)
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
    options.add_argument("--device", default="cpu")
    given = options.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads\n")
    for case in cases(given.only):
        n = IMAGES[case.name]
        few = len(case.x) < n
        x, y = cifar(real_data(), n) if few else (case.x[:n], case.y[:n])
        # The largest network twice at most: one weight change takes its plain loop half a minute.
        repeats = min(2, given.repeats) if few else given.repeats
        model, x, y = (part.to(given.device) for part in (case.model, x, y))
        with arithmetic("fp32"):  # on a GPU the plain loop as well
            compared(case.name, model, x, y, given.draws, repeats)


if __name__ == "__main__":
    main()
