"""Throughput of one and of two workers on independent models.

    python benchmarks/batch.py

The thirteen sample checkpoints on 256 digits of each split, preset quick, one thread a worker. The
time is the run's, from its first line in the journal to its last, with the start of the workers;
throughput counts from the first job that is begun. Prints what `results/batch-cpu.txt` keeps.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from robaudit.batch import log
from robaudit.batch.directory import create
from robaudit.batch.driving import drive
from robaudit.batch.listing import jobs_of, rows_of
from robaudit.batch.local import local
from robaudit.batch.manifest import manifest_of
from robaudit.checkpoints import samples_dir


def run(rows, folder, workers):
    """Seconds of the run, and of its jobs from the first that begins to the last that ends."""
    directory = create(folder)
    clock = time.perf_counter()
    outcome = drive(directory, rows, local(["cpu"] * workers), workers=workers, threads=1)
    whole = time.perf_counter() - clock
    assert outcome.complete
    events = log.events(directory.journal)
    begun = min(event["at"] for event in events if event["event"] == "started")
    ended = max(event["at"] for event in events if event["event"] == "done")
    return whole, ended - begun


def main():
    torch.set_num_threads(1)
    folder = samples_dir()
    names = [str(folder / name) for name in ("*.pt", "*.safetensors", "epochs/*.pt")]
    rows = rows_of(jobs_of(manifest_of(names, preset="quick", n=256)))
    print(f"{len(rows)} jobs")
    spans = {}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as place:
            whole, spans[workers] = run(rows, Path(place) / "run", workers)
        rate = 3600 * len(rows) / spans[workers]
        print(f"{workers} workers: {whole:6.1f} s; {rate:5.0f} jobs an hour")
    print(f"two workers' throughput is {spans[1] / spans[2]:.2f} times one worker's")


if __name__ == "__main__":
    main()
