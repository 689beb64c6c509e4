"""Robust overfitting, and whether WCI control of the learning rate holds it up.

    python studies/overfitting.py --out overfitting-study --minutes 60

Adversarial training of one network for long under five schedules, on digits of which a fifth of the
training labels are wrong. Writes `schedules.md` and `schedules.svg`, best epoch against last as in
the WCI paper's Table 1, and `measures.md` and `epochs.svg`, every measure over the epochs of the
piecewise runs. The same command goes on where it stopped. `studies/cifar10.py` is the same at the
size of CIFAR-10.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measuring import measured
from overfitting_report import report
from running import Study, main

import robaudit as ra


@dataclass(frozen=True)
class Scale:
    """One size of the study.

    Attributes:
        falls: epochs after which the piecewise rate falls; control begins at the first.
        every: epochs from one test to the next.
        seeds: how many; ``measured`` of them get every measure over the epochs.
        test_n: images of each split that robustness is tested on; ``measure_n`` for the measures.
        thresholds: of the control.
        recipe: what recipes have in common; ``words`` are options of `robaudit train`.
        data: makes the data set of a seed and gives its name.
    """

    epochs: int
    falls: tuple[int, int]
    every: int
    seeds: int
    measured: int
    test_n: int
    measure_n: int
    thresholds: tuple[int, ...]
    eps: float
    recipe: str
    words: tuple[object, ...]
    data: Callable[[Study, int], str]


def noisy_digits(study: Study, seed: int) -> str:
    """The first 600 training digits, every fifth label or so another one, and all test digits."""
    path = study.out / f"digits-{seed}.npz"
    if not path.is_file():
        train, test = (ra.load_examples("digits", split=split) for split in ("train", "test"))
        x, y = train.x[:600].numpy(), train.y[:600].numpy()
        rng = np.random.default_rng(seed)
        y = np.where(rng.random(len(y)) < 0.2, (y + rng.integers(1, 10, len(y))) % 10, y)
        np.savez(path, x_train=x, y_train=y, x_test=test.x.numpy(), y_test=test.y.numpy())
    return str(path)


DIGITS = Scale(
    120, (30, 75), 5, 3, 3, 500, 300, (100, 250), 0.1, "batch_size = 64\nweight_decay = 0.0\n",
    ("--arch", "digits_resnet(width=16)", "--device", "cpu"), noisy_digits,
)  # fmt: skip
SMOKE = Scale(
    2, (1, 2), 1, 1, 1, 8, 8, (100,), 0.1, "batch_size = 32\n",
    ("--n", 32, "--arch", "digits_resnet(width=4)", "--device", "cpu"), noisy_digits,
)  # fmt: skip


def schedules(scale: Scale) -> dict[str, str]:
    """Recipe tables by the schedule's name."""
    first, second = scale.falls
    known = {
        "piecewise": f'[schedule]\nkind = "piecewise"\nmilestones = [{first}, {second}]\n',
        "cosine": '[schedule]\nkind = "cosine"\n',
        "cyclic": '[schedule]\nkind = "cyclic"\n',
    }
    control = "[wci]\nthreshold = {}.0\nafter = {}\n"
    return known | {f"WCI {t}": control.format(t, first) for t in scale.thresholds}


def run_at(study: Study, scale: Scale) -> None:
    for seed in range(scale.seeds):
        data = scale.data(study, seed)
        for schedule, table in schedules(scale).items():
            name = f"{schedule.replace(' ', '-')}-{seed}"
            folder = study.train(
                name, f"epochs = {scale.epochs}\nseed = {seed}\n{scale.recipe}{table}",
                "--data", data, "--eps", scale.eps, *scale.words, "--every", scale.every,
                "--track", "robust", "--track-n", scale.test_n,
            )  # fmt: skip
            print(f"{schedule}, seed {seed} done", flush=True)
            if schedule == "piecewise" and seed < scale.measured:
                measure(study, scale, folder, data, seed)


def measure(study: Study, scale: Scale, folder: Path, data: str, seed: int) -> None:
    """Every measure at every checkpoint of a run."""
    effort = (2, 2, 1) if study.smoke else (10, 5, 1)
    parts = [ra.load_examples(data, split=s, n=scale.measure_n) for s in ("test", "train")]
    for path in sorted((folder / "checkpoints").glob("epoch_*.safetensors")):
        epoch = int(path.stem.removeprefix("epoch_"))

        def one(path: Path = path, epoch: int = epoch) -> dict[str, float]:
            model = ra.load(path)
            found: dict[str, float] = {"seed": seed, "epoch": epoch}
            for part in parts:
                here, _ = measured(model, part, ra.ThreatModel("linf", scale.eps), *effort)
                found |= {f"{key}.{part.split}": value for key, value in here.items()}
            return found

        study.once(f"measures-{seed}-{epoch:03d}", one)


def run(study: Study) -> None:
    run_at(study, SMOKE if study.smoke else DIGITS)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report))
