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

from paper_tables import slug, write
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
    rows = [
        (name, text)
        for group in GROUPS.values()
        for name, (text, _) in list(group.items())[:: 4 if study.smoke else 1]
    ]
    # Memory first: a new process counts the most that this one has held as its own.
    for what in (memory, seconds):
        for name, text in rows:
            study.once(
                f"{slug(name)}-{what.__name__}", lambda f=what, n=name, t=text: f(study, n, t)
            )


def words_of(study: Study) -> list[object]:
    n, width = (32, 4) if study.smoke else (512, 32)
    arch = f"digits_resnet(width={width})"
    return ["--data", "digits", "--n", n, "--arch", arch, "--device", "cpu"]


def memory(study: Study, name: str, text: str) -> Row:
    """The most that a process held, in GiB."""
    folder = study.out / f"{slug(name)}-alone"
    path = folder.with_suffix(".toml")
    path.write_text(f"epochs = 1\nbatch_size = 256\n{text}", "utf-8")
    command = [sys.executable, "-m", "robaudit", "train", path, "--out", folder, "--quiet"]
    words = list(map(str, [*command, *words_of(study)]))
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return {"memory": float(next(csv.DictReader(file))["peak_memory_gib"])}


def seconds(study: Study, name: str, text: str) -> Row:
    """Processor seconds of an epoch."""
    more, took = 1 if study.smoke else study.given.epochs, []
    for k, epochs in enumerate((1, 1, 1 + more)):  # the first of them pays for what is loaded once
        began = time.process_time()
        recipe = f"epochs = {epochs}\nbatch_size = 256\n{text}"
        study.train(f"{slug(name)}-{k}", recipe, *words_of(study))
        took.append(time.process_time() - began)
    found = (took[2] - took[1]) / more
    if name.endswith("control"):
        last = study.out / f"{slug(name)}-0" / "checkpoints" / "epoch_001.safetensors"
        found += index_seconds(str(last), 32 if study.smoke else 128)
    return {"seconds": found}


def index_seconds(path: str, n: int) -> float:
    """One measurement of the index as WCI control makes it."""
    part = ra.load_examples("digits", split="train", n=n)
    model = ra.load(path, device="cpu")
    measure = fixed_batch_wci(model, part.x, part.y, ra.ThreatModel("linf", 0.15))
    measure()
    began = time.process_time()
    measure()
    return time.process_time() - began


def report(study: Study) -> None:
    lines: list[list[object]] = []
    for rows in GROUPS.values():
        first: Row | None = None
        for name, (_, paper) in rows.items():
            paths = [study.out / f"{slug(name)}-{what}.json" for what in ("memory", "seconds")]
            if all(path.is_file() for path in paths):
                found = {k: v for path in paths for k, v in json.loads(path.read_text()).items()}
                first = first or found
                times = found["seconds"] / first["seconds"]
                more = found["memory"] - first["memory"]
                lines.append([name, found["seconds"], times, found["memory"], more, paper])
    header = ("training", "CPU seconds an epoch", "times the first's", "peak memory, GiB", "more")
    write(study, "costs.md", (*header, "paper: time, memory beside the first"), lines)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
