"""The RAT paper's Tables 2, 3 and 5, small: Taylor terms in l2, with AWP, and in other networks.

    python studies/rat_networks.py --out rat-networks

Writes `networks.md`. The networks are small relatives of the paper's: WideResNet-10-2, VGG with
five convolutions, MobileNetV2 of a quarter of the width; Table 3's is the residual network of
`paper_tables.py`, in l2. Columns as in `rat_tables.py`.
"""

from __future__ import annotations

import sys

from paper_tables import OPTIONS, Setting, meet, met_lines, seeds_of, train_rows, write
from rat_tables import BOTH, FIRST, met, network
from running import Study, main

SETTINGS = {
    "l2": Setting("l2", 0.5),
    "VGG": Setting(arch="vgg(plan=16-16-M-32-32-M-64-M, channels=1)"),
    "MobileNetV2": Setting(arch="cifar_mobilenet_v2(width=25, channels=1)"),
    "WideResNet": Setting(arch="wide_resnet(depth=10, width=2, channels=1)"),
}
AWP = "[awp]\ngamma = 0.005\n"
TERMS = {
    "TRADES": "",
    "first term": FIRST.format(0.3),
    "both terms": BOTH.format(0.2),
    "AWP": AWP,
    "AWP, first term": AWP + FIRST.format(0.3),
    "AWP, both terms": AWP + BOTH.format(0.2),
}
PAPER = {  # clean, PGD-20, CW-20, AutoAttack on CIFAR-10
    "WideResNet, TRADES": ("84.65", "56.68", "54.49", "53.0"),
    "WideResNet, first term": ("85.51", "58.34", "56.06", "54.0"),
    "WideResNet, both terms": ("85.98", "58.47", "56.13", "54.2"),
    "WideResNet, AWP": ("85.17", "59.64", "57.33", "56.2"),
    "WideResNet, AWP, first term": ("86.10", "61.47", "58.09", "57.1"),
    "WideResNet, AWP, both terms": ("86.12", "61.45", "58.22", "57.4"),
    "l2, AWP": ("87.05", "72.08", "", "71.6"),
    "l2, AWP, both terms": ("88.41", "72.85", "", "72.0"),
    "VGG, TRADES": ("79.78", "49.88", "46.95", "44.3"),
    "VGG, both terms": ("80.99", "50.13", "47.09", "44.4"),
    "VGG, AWP": ("78.46", "51.19", "47.41", "46.3"),
    "VGG, AWP, both terms": ("80.31", "52.71", "48.38", "46.5"),
    "MobileNetV2, TRADES": ("79.73", "51.41", "48.43", "46.4"),
    "MobileNetV2, both terms": ("81.86", "53.34", "49.93", "47.8"),
    "MobileNetV2, AWP": ("79.86", "53.56", "50.11", "47.7"),
    "MobileNetV2, AWP, both terms": ("81.95", "55.37", "51.55", "49.4"),
}


# Without a bound on its gradients the small MobileNetV2 diverges at the baseline's rate.
CLIP = {"MobileNetV2": "clip_norm = 1.0\n"}
ROWS = {}
for name in PAPER:
    group, _, terms = name.partition(", ")
    ROWS[name] = f'objective = "trades"\n{CLIP.get(group, "")}{TERMS[terms]}'


def run(study: Study) -> None:
    for group, setting in list(SETTINGS.items())[: 2 if study.smoke else None]:
        rows = {name: text for name, text in ROWS.items() if name.startswith(f"{group},")}
        rows = dict(list(rows.items())[:2]) if study.smoke else rows
        train_rows(study, rows, "", setting=setting)
        for seed in seeds_of(study):
            meet(
                study,
                rows,
                seed,
                lambda n, s=seed, on=setting: met(study, network(study, n, s), on),
            )


def report(study: Study) -> None:
    keys = ("clean", "pgd", "cw", "fast")
    header = ("training", *keys, *(f"paper: {key}" for key in keys))
    write(study, "networks.md", header, met_lines(study, PAPER, keys, PAPER))


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
