"""What each of 10 000 CIFAR-10 test images withstands, for simulating gates.

    python benchmarks/record_outcomes.py

On a published adversarially trained network (CNN-A, linf 2/255) and JPEG copies of the test set,
both from the folder that ``ROBAUDIT_REAL_DATA`` names: clean, PGD-20, and the fast tier. Writes
``results/outcomes.npz``, packed bits, which ``gate.py`` draws from.
"""

import io
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from attacks import cnn_a
from PIL import Image

import robaudit as ra
from robaudit.engine import Runner, accelerate, frozen

OUTCOMES = Path(__file__).parent / "results" / "outcomes.npz"


def images(real):
    data = np.load(real / "cifar10_jpeg_test.npz")
    files = (bytes(data["jpeg"][start:end]) for start, end in pairwise(data["offsets"]))
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return x, torch.tensor(data["y"]).long()


def main():
    real = Path(os.environ["ROBAUDIT_REAL_DATA"])
    model, (x, y) = cnn_a(real), images(real)
    threat = ra.ThreatModel("linf", 2 / 255)
    found = ra.attacks.pgd(model, x, y, threat, steps=20, mode="accuracy")
    stands = found.robust.clone()
    rows = stands.nonzero()[:, 0]
    with frozen(model):
        runner = Runner(accelerate(model, x.shape[1:], "fp32").forward, torch.device("cpu"))
        stands[rows] = ra.attacks.fast(runner, x[rows], y[rows], threat, index=rows).robust
    outcomes = {"clean": found.correct, "pgd": found.robust, "fast": stands}
    np.savez(OUTCOMES, **{name: np.packbits(kept.numpy()) for name, kept in outcomes.items()})
    for name, kept in outcomes.items():
        print(f"{name}: {int(kept.sum())} of {len(kept)}")


if __name__ == "__main__":
    main()
