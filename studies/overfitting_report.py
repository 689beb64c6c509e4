"""Tables and pictures of the overfitting study: schedules, and measures over the epochs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import fmean

from running import Row, Study, interval, pyplot, spread, table

from robaudit.report.pictures import palette

SCHEDULES = ("piecewise", "cosine", "cyclic")
ROBUST, CLEAN, LOSS = "accuracy.pgd.test", "accuracy.clean.test", "loss.robust.test"
MEASURES = {
    "clean": "clean accuracy", "robust": "robust accuracy", "loss": "robust loss (nats)",
    "wci": "WCI", "trace": "trace, all layers", "weights": "weight norm",
    "flatness.average": "average flatness (nats)", "flatness.worst": "worst-case flatness (nats)",
    "hessian.largest": "largest eigenvalue", "hessian.relative": "relative largest eigenvalue",
}  # fmt: skip

Runs = dict[str, list[list[Row]]]


def report(study: Study) -> None:
    for found, words, picture, names in (
        (tested(study.out), schedules_table, schedules_picture, ("schedules.md", "schedules.svg")),
        (
            measured_courses(study.out),
            measures_table,
            measures_picture,
            ("measures.md", "epochs.svg"),
        ),
    ):
        if found:
            (study.out / names[0]).write_text(words(found) + "\n", "utf-8")
            print(words(found))
            picture(found, study.out / names[1])


def tested(out: Path) -> Runs:
    """The metrics of every run, by schedule and then by seed."""
    runs: Runs = {}
    for path in sorted(out.glob("*/metrics.csv")):
        with path.open(encoding="utf-8") as file:
            rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
        if any(ROBUST in row for row in rows):
            schedule = path.parent.name.rpartition("-")[0].replace("-", " ")
            runs.setdefault(schedule, []).append(rows)
    order = [*(name for name in SCHEDULES if name in runs), *sorted(set(runs) - set(SCHEDULES))]
    return {name: runs[name] for name in order}


def at_tests(rows: list[Row], column: str, scale: float = 1.0) -> tuple[list[float], list[float]]:
    """Epochs and values where the column was measured."""
    there = [(row["epoch"], scale * row[column]) for row in rows if column in row]
    return [epoch for epoch, _ in there], [value for _, value in there]


def schedules_table(runs: Runs) -> str:
    """Best tested epoch against the last, as in the WCI paper's Table 1."""
    drops = {}
    lines = []
    for name, own in runs.items():
        curves = [at_tests(rows, ROBUST, 100.0)[1] for rows in own]
        drops[name] = drop = [max(curve) - curve[-1] for curve in curves]
        clean = [at_tests(rows, CLEAN, 100.0)[1][-1] for rows in own]
        fewer = [a - b for a, b in zip(drops.get("piecewise", []), drop, strict=False)]
        lines.append([
            name, len(own), spread([curve[-1] for curve in curves]), spread(list(map(max, curves))),
            interval(drop), interval(fewer) if name != "piecewise" else "", spread(clean),
        ])  # fmt: skip
    header = (
        "schedule", "seeds", "robust, last", "robust, best", "drop [95 %]",
        "less than piecewise [95 %]", "clean, last",
    )  # fmt: skip
    return table(header, lines)


def schedules_picture(runs: Runs, path: Path) -> None:
    """Robust accuracy, robust loss and learning rate over the epochs; bands hold all seeds."""
    plt = pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    panels = (
        (ROBUST, 100.0, "robust test accuracy, %"), (LOSS, 1.0, "robust test loss (nats)"),
        ("learning_rate", 1.0, "learning rate"),
    )  # fmt: skip
    for panel, (column, scale, title) in zip(axes, panels, strict=True):
        for (name, own), (color, dash, _) in zip(runs.items(), palette.LINES, strict=False):
            curves = [at_tests(rows, column, scale) for rows in own]
            whole = [curve for curve in curves if len(curve[0]) == max(len(c[0]) for c in curves)]
            epochs, values = whole[0][0], list(zip(*(v for _, v in whole), strict=True))
            panel.plot(epochs, [fmean(v) for v in values], dash, lw=1.4, color=color, label=name)
            panel.fill_between(
                epochs, [min(v) for v in values], [max(v) for v in values], color=color, alpha=0.15,
                lw=0,
            )  # fmt: skip
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("epoch")
    axes[2].set_yscale("log")
    axes[2].set_ylim(1e-7, 0.2)  # under control it goes on to fall far below
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def measured_courses(out: Path) -> list[list[Row]]:
    """Every measure at each epoch of the piecewise runs, seed by seed."""
    courses: dict[int, list[Row]] = {}
    for path in sorted(out.glob("measures-*.json")):
        row = json.loads(path.read_text("utf-8"))
        courses.setdefault(row["seed"], []).append(row)
    return list(courses.values())


def best_of(rows: list[Row]) -> Row:
    """The epoch of the highest robust accuracy on test images, the first of equals."""
    return max(rows, key=lambda row: row["robust.test"])


def measures_table(courses: list[list[Row]]) -> str:
    """Every measure at the best epoch and at the last, on both splits."""
    lines = []
    for key, title in MEASURES.items():
        cells: list[object] = [title]
        for split in ("test", "train"):
            column = f"{key}.{split}"
            best = [best_of(rows)[column] for rows in courses]
            last = [rows[-1][column] for rows in courses]
            cells += [spread(best), spread(last)]
        lines.append(cells)
    lines.insert(0, ["epoch", spread([best_of(rows)["epoch"] for rows in courses]),
                     spread([rows[-1]["epoch"] for rows in courses]), "", ""])  # fmt: skip
    return table(("measure", "test, best", "test, last", "train, best", "train, last"), lines)


def measures_picture(courses: list[list[Row]], path: Path) -> None:
    """Each measure over the epochs; the first seed strong, a disc at the best epoch."""
    plt = pyplot()
    figure, axes = plt.subplots(2, 5, figsize=(14, 5.6), layout="constrained")
    for panel, (key, title) in zip(axes.flat, MEASURES.items(), strict=True):
        for split, dash, color in (("test", "-", palette.BLUE), ("train", "--", palette.VERMILION)):
            for seed, rows in enumerate(courses):
                column = f"{key}.{split}"
                panel.plot(
                    [row["epoch"] for row in rows], [row[column] for row in rows], dash,
                    color=color, lw=0.8 if seed else 1.8, alpha=0.5 if seed else 1.0,
                    label=None if seed else f"{split} images",
                )  # fmt: skip
        for seed, rows in enumerate(courses):
            ends = ((best_of(rows), "o", "best epoch"), (rows[-1], "s", "last epoch"))
            for row, marker, label in ends:
                panel.plot(
                    row["epoch"], row[f"{key}.test"], marker, color=palette.INK, ls="",
                    ms=3 if seed else 6, label=None if seed else label,
                )  # fmt: skip
        panel.set_title(title, fontsize=10)
    for panel in axes[1]:
        panel.set_xlabel("epoch")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
