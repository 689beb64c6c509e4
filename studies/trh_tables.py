"""The TrH paper's Tables 1 and 7, small: defences of a vision transformer with a start.

    python studies/trh_tables.py --out trh-tables

Writes `defences.md`: columns as in `rat_tables.py`, and the paper's for ViT-L16 and ViT-B16 on
CIFAR-10. The transformer has two blocks and 2x2 patches. It starts from 20 epochs of standard
training on all training digits with their right labels, where the paper starts from ImageNet-21k.
"""

from __future__ import annotations

import sys

from paper_tables import OPTIONS, Setting, meet, met_lines, seeds_of, train_rows, words_of, write
from rat_tables import met, network
from running import Study, main

DEFENCES = {
    "base": "",
    "SWA": "[swa]\n",
    "AWP": "[awp]\ngamma = 0.001\n",
    "TrH": "[trh]\nweight = 0.005\n",
}
SETTING = Setting(
    arch="vit(width=32, depth=2, heads=4, hidden=64, patch=2, positions=17, channels=1)",
    schedule='[schedule]\nkind = "cosine"\nwarmup = 1\n',
)
START = 'objective = "standard"\noptimizer = "adam"\nlearning_rate = 0.003\nweight_decay = 0.0\n'
PAPER = {  # clean, AutoAttack: ViT-L16, Table 1; ViT-B16, Table 7
    "AT, base": ("87.4", "60.8", "87.5", "60.3"),
    "AT, SWA": ("88.0", "61.7", "86.9", "60.4"),
    "AT, AWP": ("88.5", "62.4", "87.3", "61.3"),
    "AT, TrH": ("87.0", "61.7", "88.4", "61.5"),
    "TRADES, base": ("85.2", "60.3", "85.4", "60.8"),
    "TRADES, SWA": ("85.9", "60.7", "85.6", "60.6"),
    "TRADES, AWP": ("85.3", "60.8", "84.7", "60.1"),
    "TRADES, TrH": ("86.4", "61.4", "85.8", "61.1"),
}


def row(name: str) -> str:
    """The recipe of a row, without its start."""
    loss, defence = name.split(", ")
    return f'objective = "{loss.lower()}"\nclip_norm = 1.0\n{DEFENCES[defence]}'


ROWS = {name: row(name) for name in PAPER}


def run(study: Study) -> None:
    few = 1 if study.smoke else 20
    for seed in seeds_of(study):
        words = words_of(study, SETTING)[2:]  # all images
        begun = f"epochs = {few}\nseed = {seed}\n{START}"
        folder = study.train(f"start-{seed}", begun, "--data", "digits", *words, "--every", few)
        start = f'start = "{(folder / "checkpoints" / f"epoch_{few:03d}.safetensors").resolve()}"\n'
        for name in list(ROWS)[1:7:5] if study.smoke else ROWS:
            train_rows(study, {name: start + ROWS[name]}, "", setting=SETTING, seeds=(seed,))
            kind = "averaged" if name.endswith("SWA") else "checkpoints"
            meet(
                study, [name], seed,
                lambda n, s=seed, k=kind: met(study, network(study, n, s, k), SETTING),
            )  # fmt: skip


def report(study: Study) -> None:
    keys = ("clean", "pgd", "cw", "fast")
    paper = ("paper, ViT-L16: clean", "AutoAttack", "ViT-B16: clean", "AutoAttack")
    lines = met_lines(study, ROWS, keys, PAPER)
    write(study, "defences.md", ("training", *keys, *paper), lines)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
