"""The WCI paper's Table 1, small: learning-rate schedules, best epoch against last.

    python studies/wci_table_1.py --out wci-table-1

Writes `schedules.md`, our numbers beside the paper's. "Smartdrop" is defined in neither the paper
nor its source; `plateau` is there in its place and has no number of the paper's.
"""

from __future__ import annotations

import sys

from paper_tables import (
    OPTIONS,
    SCHEDULE_HEADER,
    epochs_of,
    schedule_lines,
    tested,
    train_rows,
    write,
)
from running import Study, main

PAPER = {  # robust last, best, drop; clean last
    "piecewise": ("46.35", "53.04", "6.69", "84.81"),
    "cosine": ("45.01", "51.04", "6.03", "84.51"),
    "cyclic": ("50.85", "52.02", "1.17", "84.87"),
    "piecewise-zoom": ("47.62", "51.92", "4.30", "84.02"),
    "piecewise-zoom, long": ("48.67", "49.66", "0.99", "79.21"),
    "plateau": ("", "", "", ""),
    "WCI control, 100": ("52.98", "53.80", "0.82", "83.42"),
}


def rows(study: Study) -> dict[str, str]:
    """Recipe tables by the schedule's name."""
    epochs = epochs_of(study)
    first, second = max(1, epochs // 4), max(2, 5 * epochs // 8)
    zoom = '[schedule]\nkind = "piecewise-zoom"\nmilestones = [{}, {}]\nzoom = {}\n'
    return {
        "piecewise": "",
        "cosine": '[schedule]\nkind = "cosine"\n',
        "cyclic": '[schedule]\nkind = "cyclic"\n',
        "piecewise-zoom": zoom.format(first, second, max(1, epochs // 20)),
        "piecewise-zoom, long": zoom.format(first, second, max(1, epochs // 5)),
        "plateau": 'validation = 0.1\n[schedule]\nkind = "plateau"\npatience = 2\n',
        "WCI control, 100": f"[wci]\nthreshold = 100.0\nafter = {first}\n",
    }


def run(study: Study) -> None:
    train_rows(study, rows(study), "robust", every=tested(study))


def report(study: Study) -> None:
    paper = ("paper: robust, last", "robust, best", "drop", "clean, last")
    lines = schedule_lines(study, rows(study), PAPER)
    write(study, "schedules.md", (*SCHEDULE_HEADER, *paper), lines)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
