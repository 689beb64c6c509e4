"""The WCI paper's Figure 2, small: when the learning rate falls, and by how much.

    python studies/wci_fig_2.py --out wci-fig-2

Writes `falls.md`. The paper trains for 200 epochs and draws curves without numbers. In (a) the rate
falls to a tenth after 25, 50, 75 or 100 of them and again 50 later: an eighth to a half here, and a
quarter later. In (b) it falls once, half-way, from 0.1 or 0.01 to a tenth or a hundredth.
"""

from __future__ import annotations

import sys

from paper_tables import (
    OPTIONS,
    PIECEWISE,
    SCHEDULE_HEADER,
    epochs_of,
    schedule_lines,
    tested,
    train_rows,
    write,
)
from running import Study, main


def rows(study: Study) -> dict[str, str]:
    """Recipe tables by what the rate does."""
    epochs = epochs_of(study)
    found = {}
    for eighths in (1, 2, 3, 4):
        falls = sorted({max(1, k * epochs // 8) for k in (eighths, eighths + 2)})
        found[f"falls after {eighths}/8"] = f"{PIECEWISE}milestones = {falls}\n"
    for rate in (0.1, 0.01):
        for factor in (0.1, 0.01):
            once = f"{PIECEWISE}milestones = [{max(1, epochs // 2)}]\nfactor = {factor}\n"
            found[f"{rate} to {rate * factor:g}"] = f"learning_rate = {rate}\n{once}"
    return found


def run(study: Study) -> None:
    train_rows(study, rows(study), "robust", every=tested(study))


def report(study: Study) -> None:
    write(study, "falls.md", SCHEDULE_HEADER, schedule_lines(study, rows(study), {}))


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
