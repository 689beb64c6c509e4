"""What the scripts of the papers' tables share: small networks on noisy digits, tested alike.

The first 300 training digits with a fifth of their labels wrong, as in `studies/overfitting.py`, a
residual network of width 12, adversarial training by PGD-10 at linf 0.1. A row of a table is what
its recipe has beside that.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from overfitting import noisy_digits
from running import Row, Study, spread, table

EPS = 0.1
ROBUST, CLEAN, LOSS = "accuracy.pgd.test", "accuracy.clean.test", "loss.robust.test"
OPTIONS = {
    "--seeds": {"type": int, "default": 1, "help": "networks of each row"},
    "--epochs": {"type": int, "default": 40, "help": "falls at a quarter and five eighths of them"},
}


def words_of(study: Study) -> tuple[object, ...]:
    """Options of `robaudit train` for images, radius and network."""
    n, width = (32, 4) if study.smoke else (300, 12)
    return ("--n", n, "--eps", EPS, "--arch", f"digits_resnet(width={width})", "--device", "cpu")


def epochs_of(study: Study) -> int:
    return 2 if study.smoke else int(study.given.epochs)


def recipe(text: str, epochs: int, seed: int) -> str:
    """A whole recipe from keys and tables; what it does not say is the baseline's."""
    usual = {"epochs": epochs, "seed": seed, "batch_size": 32, "weight_decay": 0.0}
    keys = [f"{key} = {value}" for key, value in usual.items() if f"{key} =" not in text]
    falls = sorted({max(1, epochs // 4), max(1, 5 * epochs // 8)})
    if "[schedule]" not in text and "[wci]" not in text:
        text += f'[schedule]\nkind = "piecewise"\nmilestones = {falls}\n'
    return "\n".join(keys) + "\n" + text


def train_rows(
    study: Study, rows: Mapping[str, str], track: str, every: int | None = None, offset: int = 0
) -> None:
    """Train every row with every seed; ``track`` and ``every`` are options of `robaudit train`.

    ``offset`` is added to the seed of the weights, not to that of the labels.
    """
    epochs = epochs_of(study)
    for seed in range(1 if study.smoke else study.given.seeds):
        data = noisy_digits(study, seed)
        for name, text in rows.items():
            study.train(
                f"{slug(name)}-{seed}", recipe(text, epochs, seed + offset), "--data", data,
                *words_of(study), "--every", 1 if study.smoke else every or epochs,
                *(("--track", track, "--track-n", 8 if study.smoke else 200) if track else ()),
            )  # fmt: skip
            print(f"{name}, seed {seed} done", flush=True)


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def courses(study: Study, name: str) -> list[list[Row]]:
    """The tested epochs of every finished run of that row, a list a seed."""
    found = []
    for seed in range(study.given.seeds):
        path: Path = study.out / f"{slug(name)}-{seed}" / "metrics.csv"
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
            if rows and rows[-1]["epoch"] == epochs_of(study):
                found.append([row for row in rows if ROBUST in row])
    return found


def best_and_last(rows: Sequence[Row]) -> tuple[Row, Row]:
    """The epoch of the highest robust test accuracy, which the papers call best, and the last."""
    return max(rows, key=lambda row: row[ROBUST]), rows[-1]


def spread_of(runs: Sequence[Row], column: str, scale: float = 1.0) -> str:
    """Mean and, of several seeds, standard deviation of a column."""
    return spread([scale * run[column] for run in runs])


def write(
    study: Study, name: str, header: Sequence[str], lines: Sequence[Sequence[object]]
) -> None:
    """The table on the screen and in the folder; nothing where it has no line."""
    if lines:
        found = table(header, lines)
        (study.out / name).write_text(found + "\n", "utf-8")
        print(found)
