"""The flatness paper's Figure 7 and Table 1, small: robust loss against flatness.

    python studies/flatness_fig_7.py --out flatness-fig-7 --epochs 120 --steps 5

The rate follows a cosine in rows without a schedule of their own. Writes `methods.md`, our last
epoch beside the paper's, and `correlations.md`, coefficients of robust loss, its gap and robust
error with both flatness measures over all networks.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from overfitting import noisy_digits
from paper_tables import (
    COSINE,
    LOSS,
    OPTIONS,
    PIECEWISE,
    ROBUST,
    Setting,
    courses,
    epochs_of,
    mean_of,
    recipe,
    seeds_of,
    train_rows,
    words_of,
    write,
)
from running import Row, Study, main
from scipy.stats import pearsonr, spearmanr

import robaudit as ra

DECAY, CLIP = "weight_decay = {}\n", "weight_clip = {}\n"
UNLABELLED = "unlabelled-{seed}.npz"
ROWS = {
    "AT": "",
    "AT-AWP, 0.005": "[awp]\ngamma = 0.005\n",
    "AT-AWP, 0.02": "[awp]\ngamma = 0.02\n",
    "TRADES, 1": 'objective = "trades"\npenalty = 1.0\n',
    "TRADES, 6": 'objective = "trades"\npenalty = 6.0\n',
    "MART": 'objective = "mart"\n',
    "self-supervision, 0.5": "[rotations]\nweight = 0.5\n",
    "unlabelled, 0.5": f'extra_data = "{{out}}/{UNLABELLED}"\nextra_share = 0.5\n',
    "weight decay, 5e-4": DECAY.format(5e-4),
    "weight decay, 5e-3": DECAY.format(5e-3),
    "weight clipping, 0.1": CLIP.format(0.1),
    "weight clipping, 0.05": CLIP.format(0.05),
    "label smoothing, 0.3": "label_smoothing = 0.3\n",
    "label noise, 0.3": "label_noise = 0.3\n",
    "cutout, 3 pixels": "[augment]\ncutout = 3\n",
    "early-stopped PGD, 1": "[attack]\nearly_stop = 1\n",
    "Entropy-SGD": 'optimizer = "entropy-sgd"\nlearning_rate = 0.9\n[entropy_sgd]\nlangevin = 5\n',
    "Adam": 'optimizer = "adam"\nlearning_rate = 0.005\n',
    "batch size, 16": "batch_size = 16\n",
    "batch size, 128": "batch_size = 128\n",
    "cyclic": '[schedule]\nkind = "cyclic"\n',
    "multi-step": PIECEWISE,
}
PAPER = {  # robust test error, average flatness, worst-case flatness; its chosen strength
    "AT": ("62.8", "1.21", "6.48"),
    "AT-AWP, 0.02": ("54.3", "0.35", "2.68"),
    "TRADES, 6": ("56.7", "0.57", "2.25"),
    "MART": ("61.0", "0.73", "3.17"),
    "self-supervision, 0.5": ("57.1", "0.33", "2.63"),
    "unlabelled, 0.5": ("48.9", "0.32", "1.20"),
    "weight decay, 5e-3": ("58.1", "0.50", "3.93"),
    "weight clipping, 0.05": ("56.5", "0.41", "4.57"),
    "label smoothing, 0.3": ("61.2", "0.65", "2.72"),
    "label noise, 0.3": ("56.2", "0.33", "0.93"),
    "Entropy-SGD": ("58.6", "0.28", "1.80"),
    "cyclic": ("53.6", "0.35", "1.50"),
}
AVERAGE, WORST = "flatness.average.test", "flatness.worst.test"


def run(study: Study) -> None:
    few = {name: ROWS[name] for name in ("AT", "self-supervision, 0.5", "unlabelled, 0.5", "Adam")}
    setting = Setting(schedule=COSINE)
    for seed in seeds_of(study):
        label(study, seed, setting)
    train_rows(study, few if study.smoke else ROWS, "robust,flatness", setting=setting)


def label(study: Study, seed: int, setting: Setting) -> None:
    """The training digits behind the first 300, labelled by a network trained plainly on those."""
    path = study.out / UNLABELLED.format(seed=seed)
    if path.is_file():
        return
    epochs = epochs_of(study)
    run = study.train(
        f"labels-{seed}", recipe('objective = "standard"\n', epochs, seed, setting=setting),
        "--data", noisy_digits(study, seed), *words_of(study, setting), "--every", epochs,
    )  # fmt: skip
    model = ra.load(run / "checkpoints" / f"epoch_{epochs:03d}.safetensors", device="cpu")
    digits = ra.load_examples("digits", split="train")
    x, y = digits.x[300:], digits.y[300:]
    with torch.no_grad():
        found = model(x).argmax(1)
    right = float((found == y).double().mean())
    print(f"labels of {len(x)} digits, seed {seed}: {right:.1%} right", flush=True)
    np.savez(path, x=x.numpy(), y=found.numpy())


def report(study: Study) -> None:
    lines: list[list[object]] = []
    networks: list[Row] = []
    for name in ROWS:
        ends = [course[-1] | {"error": 1 - course[-1][ROBUST]} for course in courses(study, name)]
        networks += ends
        if ends:
            for end in ends:
                end["error.train"] = 1 - end["accuracy.pgd.train"]
                end["gap"] = end[LOSS] - end["loss.robust.train"]
            errors = [mean_of(ends, key, 100) for key in ("error", "error.train")]
            rest = [mean_of(ends, key) for key in (LOSS, AVERAGE, WORST)]
            lines.append([name, *errors, *rest, *PAPER.get(name, ("", "", ""))])
    header = ("training", "robust error, test, %", "train, %", "robust loss", "average flatness")
    header += ("worst-case", "paper: error, %", "average", "worst-case")
    write(study, "methods.md", header, lines)
    if len(networks) > 2:
        found = [
            [what, *coefficients([n[a] for n in networks], [n[b] for n in networks])]
            for what, a, b in (
                ("robust loss, average flatness", LOSS, AVERAGE),
                ("robust loss, worst-case flatness", LOSS, WORST),
                ("robust error, average flatness", "error", AVERAGE),
                ("gap in robust loss, average flatness", "gap", AVERAGE),
                ("gap in robust loss, worst-case flatness", "gap", WORST),
            )
        ]
        header = (f"of {len(networks)} networks", "Pearson", "Spearman")
        write(study, "correlations.md", header, found)


def coefficients(a: list[float], b: list[float]) -> list[str]:
    """Pearson's and Spearman's, with p values."""
    if 1 in (len(set(a)), len(set(b))):
        return ["all alike"] * 2
    return [f"{r.statistic:.2f} (p = {r.pvalue:.1g})" for r in (pearsonr(a, b), spearmanr(a, b))]


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
