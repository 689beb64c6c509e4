"""What the scripts of the papers' tables share: small networks on noisy digits, tested alike.

The first 300 training digits with a fifth of their labels wrong, as in `studies/overfitting.py`, a
residual network of width 12, adversarial training by PGD-10 at linf 0.1. A row of a table is what
its recipe has beside that.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from overfitting import noisy_digits
from running import Row, Study, table

EPS = 0.1
COSINE = '[schedule]\nkind = "cosine"\n'
PIECEWISE = '[schedule]\nkind = "piecewise"\n'
ROBUST, CLEAN, LOSS = "accuracy.pgd.test", "accuracy.clean.test", "loss.robust.test"
SCHEDULE_HEADER = ("schedule", "robust, last, %", "robust, best, %", "drop", "clean, last, %")
OPTIONS = {
    "--seeds": {"type": int, "default": 1, "help": "networks of each row"},
    "--epochs": {"type": int, "default": 40, "help": "falls at a quarter and five eighths of them"},
    "--steps": {"type": int, "default": 10, "help": "of PGD in training, 2.5 / steps of eps long"},
}


@dataclass(frozen=True)
class Setting:
    """What the rows of a table have in common: threat model, network, and the schedule."""

    norm: str = "linf"
    eps: float = EPS
    arch: str = "digits_resnet(width=12)"
    schedule: str = PIECEWISE


def words_of(study: Study, setting: Setting) -> tuple[object, ...]:
    """Options of `robaudit train` for images, threat model and network."""
    small = study.smoke and setting.arch == Setting.arch
    arch = "digits_resnet(width=4)" if small else setting.arch
    n = 32 if study.smoke else 300
    return ("--n", n, "--norm", setting.norm, "--eps", setting.eps, "--arch", arch,
            "--device", "cpu")  # fmt: skip


def epochs_of(study: Study) -> int:
    return 2 if study.smoke else int(study.given.epochs)


def seeds_of(study: Study) -> range:
    return range(1 if study.smoke else study.given.seeds)


def tested(study: Study) -> int:
    """Epochs from one test to the next, ten in all."""
    return max(1, epochs_of(study) // 10)


def recipe(text: str, epochs: int, seed: int, steps: int = 10, setting: Setting = Setting()) -> str:
    """A whole recipe from keys and tables; what it does not say is the baseline's."""
    usual = {"epochs": epochs, "seed": seed, "batch_size": 32, "weight_decay": 0.0}
    keys = [f"{key} = {value}" for key, value in usual.items() if f"{key} =" not in text]
    if "[schedule]" not in text and "[wci]" not in text:
        text += setting.schedule
    if PIECEWISE in text and "milestones" not in text:
        falls = sorted({max(1, epochs // 4), max(1, 5 * epochs // 8)})
        text = text.replace(PIECEWISE, f"{PIECEWISE}milestones = {falls}\n")
    if steps != 10:
        head, size = "[attack]\n", 2.5 * setting.eps / steps
        text = text if head in text else text + head
        text = text.replace(head, f"{head}steps = {steps}\nstep_size = {size:.4g}\n")
    return "\n".join(keys) + "\n" + text


def train_rows(
    study: Study,
    rows: Mapping[str, str],
    track: str,
    every: int | None = None,
    offset: int = 0,
    setting: Setting = Setting(),
    seeds: Sequence[int] | None = None,
) -> None:
    """Train every row with every seed; ``track`` and ``every`` are options of `robaudit train`.

    ``offset`` is added to the seed of the weights, not to that of the labels. In a row, ``{out}``
    is the study's folder and ``{seed}`` the seed.
    """
    epochs = epochs_of(study)
    for seed in seeds_of(study) if seeds is None else seeds:
        data = noisy_digits(study, seed)
        for name, text in rows.items():
            text = text.format(out=study.out.as_posix(), seed=seed)
            whole = recipe(text, epochs, seed + offset, study.given.steps, setting)
            study.train(
                f"{slug(name)}-{seed}", whole, "--data", data, *words_of(study, setting),
                "--every", 1 if study.smoke else every or epochs,
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


def mean_of(runs: Sequence[Row], column: str, scale: float = 1.0) -> str:
    """Mean and, of several seeds, standard error of a column."""
    return mean([scale * run[column] for run in runs])


def mean(values: Sequence[float]) -> str:
    """Mean and, of several values, its standard error."""
    middle = f"{fmean(values):.3g}"
    return f"{middle} ±{stdev(values) / math.sqrt(len(values)):.2g}" if len(values) > 1 else middle


def write(
    study: Study, name: str, header: Sequence[str], lines: Sequence[Sequence[object]]
) -> None:
    """The table on the screen and in the folder; nothing where it has no line."""
    if lines:
        found = table(header, lines)
        (study.out / name).write_text(found + "\n", "utf-8")
        print(found)


def meet(study: Study, rows: Iterable[str], seed: int, measure: Callable[[str], Row]) -> None:
    """Write `met-*.json` of every row where it is not there yet; :func:`met_lines` reads them."""
    for name in rows:
        study.once(f"met-{slug(name)}-{seed}", lambda n=name: measure(n) | {"name": n})


def met_lines(
    study: Study, names: Iterable[str], keys: Sequence[str], paper: Mapping[str, Sequence[str]]
) -> list[list[object]]:
    """Means of what the files `met-*.json` have under the keys, a line a name."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted(study.out.glob("met-*.json"))]
    rows = {name: [row for row in found if row["name"] == name] for name in names}
    blank = [""] * max(map(len, paper.values()), default=0)
    return [
        [name, *(mean_of(own, key) for key in keys), *paper.get(name, blank)]
        for name, own in rows.items()
        if own
    ]


def schedule_lines(
    study: Study, rows: Mapping[str, str], paper: Mapping[str, Sequence[str]]
) -> list[list[object]]:
    """Robust accuracy at the last epoch and the best one, and clean accuracy at the last."""
    lines: list[list[object]] = []
    for name in rows:
        if found := [best_and_last(course) for course in courses(study, name)]:
            best, last = [pair[0] for pair in found], [pair[1] for pair in found]
            drop = [100 * (a[ROBUST] - b[ROBUST]) for a, b in found]
            ours = (mean_of(last, ROBUST, 100), mean_of(best, ROBUST, 100), mean(drop))
            lines.append([name, *ours, mean_of(last, CLEAN, 100), *paper.get(name, ())])
    return lines
