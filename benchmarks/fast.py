"""The fast tier against native AutoAttack, image by image, where they can differ.

    python benchmarks/fast.py [--only cnn-a-linf,...] [--images 32] [--keep FOLDER]

For each network and norm: of the images of the first thousand that stand after 25 steps of APGD on
the margin those with the smallest margins, where verdicts can differ; the others are left out. In
l2 and l1, and where the radius that a network was trained for leaves nearly all or nearly nothing,
the radius is one that half of the images withstand. ``--keep`` stores AutoAttack's verdicts, which
take the time. The samples need nothing; the other networks lie in the folder that
``ROBAUDIT_REAL_DATA`` names.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

import robaudit as ra
from robaudit.attacks import apgd, fast, native_autoattack
from robaudit.checkpoints import samples_dir
from robaudit.engine import Runner, accelerate, frozen

CPU = torch.device("cpu")
NETWORKS = Path(__file__).parents[1] / "tests/support/published_networks.py"
CIFAR, MNIST = "cifar10_test_first1017.npz", "mnist_test.npz"

# By name: file, network, normalization, data, radius in linf.
SAMPLES = {
    f"dg-{name}": (file, None, None, "digits", 0.15)
    for name, file in (
        ("robust", "robust.pt"),
        ("trades", "trades.safetensors"),
        ("overfit", "overfit.pt"),
        ("smooth", "smooth.safetensors"),
    )
}
PUBLISHED = {
    "cnn-a": ("sdp_cifar_cnn_a_adv.model", "cnn_a", "crown", CIFAR, 2 / 255),
    "cnn-mix": ("sdp_cifar_cnn_a_mix.model", "cnn_a", "crown", CIFAR, 2 / 255),
    "convsmall": ("eran_cifar_conv_small_pgd.pth", "conv_small", "cifar10", CIFAR, 2 / 255),
    "sigmoid": ("abc_sigmoid.pth", "conv_sigmoid", "cifar10", CIFAR, 2 / 255),
    "resnet4b": ("vnn_resnet4b.pth", "ResNet4B", "cifar10-moments", CIFAR, 2 / 255),
    "resnet2b2": ("mnbab_resnet_2b2_bn_sadv8.pth", "resnet_2b2", "cifar10-moments", CIFAR, 8 / 255),
    "smallnet": ("run_smallnet", "smallnet", "cifar10-moments", CIFAR, 8 / 255),
    "mn-trades": ("trades_mnist_smallcnn.pt", None, None, MNIST, 0.3),
    "mn-cnn": ("sdp_mnist_cnn_a_adv.model", "mnist_cnn_a", "none", MNIST, 0.3),
    "mn-colt": ("colt_mnist01.pt", "Colt", "mnist", MNIST, 0.1),
}
# Where a radius that half of the images withstand is looked for.
BETWEEN = {"linf": (0.001, 0.6), "l2": (0.02, 4.0), "l1": (0.1, 100.0)}


def opened(name, real):
    file, network, normalize, data, eps = (SAMPLES | PUBLISHED)[name]
    if name in SAMPLES:
        model, examples = ra.load(samples_dir() / file, device="cpu"), ra.load_examples(data)
    else:
        path = real / "checkpoints" / file
        path = sorted(path.iterdir())[-1] if path.is_dir() else path
        arch = network and f"{NETWORKS}:{network}"
        model = ra.load(path, arch=arch, normalize=normalize, device="cpu")
        examples = ra.load_examples(str(real / data), n=1000)
    return model, examples, eps


def radius(runner, x, y, norm, usual):
    """The usual radius in linf if it leaves something to tell, else one that half withstand."""

    def left(eps):
        threat = ra.ThreatModel(norm, eps)
        found = apgd(runner, x, y, threat, loss="margin", steps=10)
        return float(found.robust.double().mean())

    if norm == "linf" and 0.2 < left(usual) < 0.97:
        return usual
    low, high = BETWEEN[norm]
    for _ in range(7):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if left(middle) > 0.5 else (low, middle)
    return float(f"{(low * high) ** 0.5:.2g}")


def judged(runner, examples, norm, usual, images):
    """AutoAttack's verdicts on the images that are hardest to call."""
    correct = torch.nonzero(runner.logits(examples.x).argmax(1) == examples.y)[:, 0]
    x, y, index = examples.x[correct], examples.y[correct], examples.index[correct]
    eps = radius(runner, x[:192], y[:192], norm, usual)
    threat = ra.ThreatModel(norm, eps)
    found = apgd(runner, x, y, threat, loss="margin", steps=25, index=index)
    standing = torch.nonzero(found.robust)[:, 0]
    hardest = found.reached[standing].argsort(descending=True)[:images]
    rows = correct[standing[hardest]]
    some = examples.x[rows], examples.y[rows], threat
    robust = native_autoattack(runner, *some, index=examples.index[rows]).robust
    return {"rows": rows, "eps": eps, "robust": robust}


def compared(name, norm, real, images, keep):
    model, examples, usual = opened(name, real)
    with frozen(model):
        runner = Runner(accelerate(model, examples.x.shape[1:]).forward, CPU)
        kept = keep / f"{name}-{norm}.pt" if keep else None
        if kept and kept.exists():
            verdicts = torch.load(kept)
        else:
            verdicts = judged(runner, examples, norm, usual, images)
            if kept:
                torch.save(verdicts, kept)
        rows, theirs = verdicts["rows"], verdicts["robust"]
        threat = ra.ThreatModel(norm, verdicts["eps"])
        some = examples.x[rows], examples.y[rows], threat
        found = fast(runner, *some, index=examples.index[rows])
        ours, spent = found.robust, found.forwards + found.backwards
    difference = int(ours.sum()) - int(theirs.sum())
    print(
        f"{name:10} {norm:4} {threat.eps:8.4g}  {len(rows):3} images: AutoAttack leaves "
        f"{int(theirs.sum()):3}, fast {int(ours.sum()):3} ({difference:+d}); broken by fast alone "
        f"{int((theirs & ~ours).sum()):2}, by AutoAttack alone {int((ours & ~theirs).sum()):2}; "
        f"{spent / len(rows):4.0f} passes an image",
        flush=True,
    )


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", default="")
    options.add_argument("--images", type=int, default=32)
    options.add_argument("--keep", type=Path)
    given = options.parse_args()
    found = os.environ.get("ROBAUDIT_REAL_DATA")
    names = [*SAMPLES, *(PUBLISHED if found else ())]
    cases = [f"{name}-{norm}" for norm in BETWEEN for name in names]
    for case in given.only.split(",") if given.only else cases:
        name, _, norm = case.rpartition("-")
        compared(name, norm, Path(found) if found else None, given.images, given.keep)


if __name__ == "__main__":
    main()
