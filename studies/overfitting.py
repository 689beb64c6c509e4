"""Robust overfitting, and whether WCI control of the learning rate holds it up.

    python studies/overfitting.py --out overfitting-study --minutes 60

Adversarial training of one network for long, under four schedules and three seeds; every tenth
epoch is measured. Writes `schedules.md`, best epoch against last as in the WCI paper's Table 1, and
`epochs.svg`, measures over the epochs. `studies/cifar10.py` is the same at the size of CIFAR-10.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from running import Study, main, table


@dataclass(frozen=True)
class Scale:
    """One size of the study; ``words`` are options of `robaudit train`."""

    epochs: int
    every: int
    seeds: int
    track: str
    track_n: int
    batch_size: int
    head: str
    words: tuple[object, ...]


DIGITS = Scale(
    200, 10, 3, "robust,wci,flatness", 300, 64, "weight_decay = 0.0\n",
    ("--data", "digits", "--arch", "digits_resnet(width=12)", "--device", "cpu"),
)  # fmt: skip
SMOKE = Scale(
    2, 1, 1, "robust,wci", 8, 32, "",
    ("--data", "digits", "--n", 32, "--arch", "digits_resnet(width=4)", "--device", "cpu"),
)  # fmt: skip
COLUMNS = ("accuracy.pgd.test", "accuracy.clean.test")
CURVES = ("loss.robust", "accuracy.pgd", "wci", "flatness.average")


def schedules(epochs: int) -> dict[str, str]:
    """The paper's own: a fall after half and three quarters of the epochs, and so on."""
    half = epochs // 2
    return {
        "piecewise": f'[schedule]\nkind = "piecewise"\nmilestones = [{half}, {3 * epochs // 4}]\n',
        "cosine": '[schedule]\nkind = "cosine"\n',
        "cyclic": '[schedule]\nkind = "cyclic"\n',
        "wci": f"[wci]\nthreshold = 100.0\nafter = {half}\n",
    }


def run_at(study: Study, scale: Scale) -> None:
    for seed in range(scale.seeds):
        for name, text in schedules(scale.epochs).items():
            head = f"epochs = {scale.epochs}\nseed = {seed}\nbatch_size = {scale.batch_size}\n"
            study.train(
                f"{name}-{seed}", head + scale.head + text, *scale.words, "--every", scale.every,
                "--track", scale.track, "--track-n", scale.track_n,
            )  # fmt: skip
            print(f"{name}, seed {seed} done", flush=True)


def run(study: Study) -> None:
    run_at(study, SMOKE if study.smoke else DIGITS)


def rows_of(folder: Path) -> list[dict[str, float]]:
    """The measured epochs of a run."""
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row.get(COLUMNS[0])]
    return [{k: float(v) for k, v in row.items() if v} for row in found]


def report(study: Study) -> None:
    folders = sorted(path.parent for path in study.out.glob("*/metrics.csv"))
    runs = {folder.name: rows for folder in folders if (rows := rows_of(folder))}
    if not runs:
        return
    lines = []
    for name in dict.fromkeys(key.rpartition("-")[0] for key in runs):
        own = [rows for key, rows in runs.items() if key.rpartition("-")[0] == name]
        last = [100 * rows[-1][COLUMNS[0]] for rows in own]
        best = [100 * max(row[COLUMNS[0]] for row in rows) for rows in own]
        drop = [b - a for a, b in zip(last, best, strict=True)]
        clean = [100 * rows[-1][COLUMNS[1]] for rows in own]
        ended = [rows[-1]["epoch"] for rows in own]
        cells = [spread(values) for values in (last, best, drop, clean)]
        lines.append([name, len(own), f"{min(ended):.0f}", *cells])
    header = ("schedule", "seeds", "epochs", "robust, last", "robust, best", "drop", "clean, last")
    found = table(header, lines)
    (study.out / "schedules.md").write_text(found + "\n", "utf-8")
    print(found)
    picture(runs, study.out / "epochs.svg")


def spread(values: list[float]) -> str:
    middle = f"{fmean(values):.1f}"
    return f"{middle} ±{stdev(values):.1f}" if len(values) > 1 else middle


def picture(runs: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Each measure on test (line) and training images (dashes) over the epochs."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "robaudit"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(CURVES), figsize=(13, 3.4), layout="constrained")
    names = list(dict.fromkeys(key.rpartition("-")[0] for key in runs))
    for panel, measure in zip(axes, CURVES, strict=True):
        for key, rows in runs.items():
            name = key.rpartition("-")[0]
            for split, style in (("test", "-"), ("train", "--")):
                column = f"{measure}.{split}"
                there = [(row["epoch"], row[column]) for row in rows if column in row]
                if there:
                    panel.plot(
                        *zip(*there, strict=True), style, lw=1, color=f"C{names.index(name)}",
                        label=name if split == "test" and key.endswith("-0") else None,
                    )  # fmt: skip
        panel.set_title(measure, fontsize=10)
        panel.set_xlabel("epoch")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report))
