"""Robust overfitting at the size of CIFAR-10, for a machine with a GPU.

    python studies/cifar10.py --out cifar10-study --minutes 240

Trains PreActResNet-18 by adversarial training for 200 epochs from torchvision's CIFAR-10 in `data/`
under the WCI paper's schedules, in bfloat16, and measures every tenth epoch. The same command goes
on where it stopped; it then reports as `studies/overfitting.py` does.
"""

from __future__ import annotations

import sys

from overfitting import SMOKE, Scale, report, run_at
from running import Study, main

CIFAR10 = Scale(
    200, 10, 1, "robust,wci,flatness", 1000, 128,
    '[attack]\nstep_size = "2/255"\n[augment]\npad = 4\nflip = true\n',
    (
        "--data", "cifar10", "--data-dir", "data", "--arch", "preact_resnet(depth=18)",
        "--precision", "bf16", "--normalize", "cifar10",
    ),
)  # fmt: skip


def run(study: Study) -> None:
    run_at(study, SMOKE if study.smoke else CIFAR10)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report))
