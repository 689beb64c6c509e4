"""The WCI paper's Figure 5, small: its index over the epochs under cutout, mixup and l2.

    python studies/wci_fig_5.py --out wci-fig-5

Writes `curves.md`: WCI, robust loss and its gap at the best epoch and the last, and how closely WCI
goes with the gap over the tested epochs of a run. The rate follows a cosine, under which so short a
run overfits (`wci_table_1.py`).
"""

from __future__ import annotations

import sys

from paper_tables import (
    COSINE,
    LOSS,
    OPTIONS,
    Setting,
    best_and_last,
    courses,
    mean,
    mean_of,
    tested,
    train_rows,
    write,
)
from running import Row, Study, main
from scipy.stats import spearmanr

ROWS = {
    "plain": "",
    "cutout, 3 pixels": "[augment]\ncutout = 3\n",
    "mixup, 1.0": "[augment]\nmixup = 1.0\n",
    "l2, weight decay 5e-3": "weight_decay = 5e-3\n",
}


def run(study: Study) -> None:
    train_rows(study, ROWS, "robust,wci", every=tested(study), setting=Setting(schedule=COSINE))


def agreement(course: list[Row]) -> float:
    """Spearman's coefficient of WCI with the gap in robust loss over the tested epochs."""
    gaps = [row[LOSS] - row["loss.robust.train"] for row in course]
    return float(spearmanr([row["wci.test"] for row in course], gaps).statistic)


def report(study: Study) -> None:
    lines: list[list[object]] = []
    for name in ROWS:
        if runs := courses(study, name):
            found = [best_and_last(course) for course in runs]
            cells: list[object] = [name]
            for ends in ([pair[0] for pair in found], [pair[1] for pair in found]):
                gaps = [row[LOSS] - row["loss.robust.train"] for row in ends]
                cells += [mean_of(ends, "wci.test"), mean_of(ends, LOSS), mean(gaps)]
            lines.append([*cells, mean([agreement(course) for course in runs])])
    header = ("training", *("WCI", "robust loss", "loss gap") * 2, "WCI with gap, Spearman")
    header = (header[0], *(f"{name}, best" for name in header[1:4]),
              *(f"{name}, last" for name in header[4:7]), header[7])  # fmt: skip
    write(study, "curves.md", header, lines)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
