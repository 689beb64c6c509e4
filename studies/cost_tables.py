"""Time and memory of an epoch: Table 2 of the TrH and WCI papers and Table 6 of RAT, small.

    python studies/cost_tables.py --out cost-tables

Trains each method for one epoch and for several more. Writes `costs.md`: processor seconds of an
epoch (what the longer run takes more, so that neither the beginning nor other work on the machine
counts), the most memory that a process of its own held, both beside the first row of their group,
and the papers' ratios. WCI control has one measurement of the index added.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time

from paper_tables import write
from running import Row, Study, main

import robaudit as ra
from robaudit.training import fixed_batch_wci

TRADES = 'objective = "trades"\n'
GROUPS = {
    "AT": {
        "AT": ("", "1, 1"),
        "AT, TrH": ("[trh]\n", "1.06, 1.00"),
        "AT, SWA": ("[swa]\n", "1.25, 1.12"),
        "AT, AWP": ("[awp]\n", "1.49, 1.36"),
        "AT, WCI control": ("", "6.48"),
    },
    "TRADES": {
        "TRADES": (TRADES, "1, 1"),
        "TRADES, Taylor 1": (f"{TRADES}[taylor]\neta = 0.3\n", "1.30, 1.60"),
        "TRADES, Taylor 2": (f"{TRADES}[taylor]\norder = 2\neta = 0.2\n", "1.42, 2.05"),
    },
}
OPTIONS = {"--epochs": {"type": int, "default": 3, "help": "that are timed"}}


def run(study: Study) -> None:
    for rows in GROUPS.values():
        for name, (text, _) in list(rows.items())[:: 4 if study.smoke else 1]:
            study.once(name.replace(", ", "-"), lambda n=name, t=text: costs(study, n, t))


def costs(study: Study, name: str, text: str) -> Row:
    """Processor seconds of an epoch and the process's peak memory in GiB."""
    more, n, width = (1, 32, 4) if study.smoke else (study.given.epochs, 512, 32)
    words = ["--data", "digits", "--n", n, "--arch", f"digits_resnet(width={width})"]
    words += ["--device", "cpu"]
    alone = study.out / f"{name.replace(', ', '-')}-alone"
    path = alone.with_suffix(".toml")
    path.write_text(f"epochs = 1\nbatch_size = 256\n{text}", "utf-8")
    command = [sys.executable, "-m", "robaudit", "train", path, "--out", alone, "--quiet", *words]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    with (alone / "metrics.csv").open(encoding="utf-8") as file:
        memory = float(next(csv.DictReader(file))["peak_memory_gib"])
    took = []
    for k, epochs in enumerate((1, 1, 1 + more)):  # the first of them pays for what is loaded once
        began = time.process_time()
        recipe = f"epochs = {epochs}\nbatch_size = 256\n{text}"
        study.train(f"{alone.name}-{k}", recipe, *words)
        took.append(time.process_time() - began)
    seconds = (took[2] - took[1]) / more
    if name.endswith("control"):
        seconds += index_seconds(f"{alone}/checkpoints/epoch_001.safetensors", n)
    return {"name": name, "seconds": seconds, "memory": memory}


def index_seconds(path: str, n: int) -> float:
    """One measurement of the index as WCI control makes it."""
    part = ra.load_examples("digits", split="train", n=min(n, 128))
    model = ra.load(path, device="cpu")
    measure = fixed_batch_wci(model, part.x, part.y, ra.ThreatModel("linf", 0.15))
    measure()
    began = time.process_time()
    measure()
    return time.process_time() - began


def report(study: Study) -> None:
    lines: list[list[object]] = []
    for group, rows in GROUPS.items():
        first: Row | None = None
        for name, (_, paper) in rows.items():
            path = study.out / f"{name.replace(', ', '-')}.json"
            if path.is_file():
                found: Row = json.loads(path.read_text("utf-8"))
                first = found if name == group else first
                times = found["seconds"] / first["seconds"] if first else float("nan")
                more = found["memory"] - first["memory"] if first else float("nan")
                lines.append([name, found["seconds"], times, found["memory"], more, paper])
    if lines:
        header = (
            "training",
            "CPU seconds an epoch",
            "times the first's",
            "peak memory, GiB",
            "more",
        )
        write(study, "costs.md", (*header, "paper: time, memory beside the first"), lines)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
