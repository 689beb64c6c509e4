"""Robaudit on one CUDA device against the libraries that users have, in at most nine minutes.

    python benchmarks/gpu.py [--out FILE] [--minutes 9] [--only ROW]
    python benchmarks/gpu.py --device cpu --smoke

Every row (``gpu_rows.py``) runs robaudit beside a peer on the same images in one process: ratios of
seconds with their targets, images a second, the share of the card's peak, verdicts that differ, and
whether the network in float32 confirms every break. Rows come in the order of their weight. Each
has a budget, after which it is stopped; rows for which no time is left are named. Peers run in
PyTorch's default arithmetic, as their users have it (TF32 in convolutions); one that is not
installed is named, and robaudit's time stands alone.

The images and the network are those of the folder that ``ROBAUDIT_REAL_DATA`` names: an
adversarially trained PreAct-ResNet-18 and CIFAR-10's first 1017 test images. ``--smoke`` runs all
rows on a few digits, to see that they run; its times mean nothing, and no target is compared.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from gpu_bench import prepared
from gpu_cards import peak_of
from gpu_rows import ROWS

import robaudit as ra
from robaudit.errors import Interrupted

RESULTS = Path(__file__).parent / "results"
PEERS = ("pyautoattack", "torchattacks", "PyHessian")


class OutOfTimeError(Interrupted):
    """A row's budget is used up."""


def within(seconds, run):
    """Run, and stop it after that many seconds; a launched kernel is waited for."""

    def stop(*_):
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, seconds))
    try:
        return run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def header(bench, peak):
    cuda = bench.device.type == "cuda"
    name = torch.cuda.get_device_name(bench.device) if cuda else "not a GPU: no times are claimed"
    installed = []
    for peer in PEERS:
        try:
            installed.append(f"{peer} {version(peer)}")
        except PackageNotFoundError:
            installed.append(f"{peer} is not installed")
    yield f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, robaudit {ra.__version__}"
    yield f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {', '.join(installed)}"
    if peak is not None:
        word, (bf16, tf32, fp32) = peak
        yield f"peak of {word}, dense: bf16 {bf16:g}, TF32 {tf32:g}, fp32 {fp32:g} TFLOP/s"
    elif cuda:
        yield "the peak of this card is not in gpu_cards.py: no shares of it"
    yield (
        f"{bench.name}: {len(bench.examples)} images at hand, {bench.threat.norm} "
        f"{bench.threat.eps:.4g}; forward {bench.flops.forward / 1e9:.3g} GFLOP an image, back to "
        f"the image {bench.flops.backward / 1e9:.3g}"
    )
    yield ""


def described(row, line, peak, claims):
    """A line of the table, and its notes below it."""
    own = f"{line.seconds:9.3f} s"
    theirs = f"{line.peer} {line.peer_seconds:.3f} s" if line.peer_seconds else line.peer
    parts = [f"  {line.what:44} {own}   {theirs:36}"]
    if line.ratio is not None and claims:
        reached = "" if line.target is None else _against(line.ratio, "<=", line.target)
        parts.append(f"ratio {line.ratio:.3f}{reached}")
    if line.images and claims:
        parts.append(f"{line.images / line.seconds:,.0f} images/s")
    if line.work and peak is not None and claims:
        share = line.work / line.seconds / (peak[1][0] * 1e12)
        reached = "" if line.share is None else _against(share, ">=", line.share, percent=True)
        parts.append(f"{100 * share:.1f} % of bf16 peak{reached}")
    if line.limit is not None and claims:
        parts.append(f"target <= {line.limit:g} s: {_word(line.seconds <= line.limit)}")
    yield "  ".join(parts).rstrip()
    for note in line.notes:
        yield f"      {note}"


def _against(value, sign, target, percent=False):
    met = value <= target if sign == "<=" else value >= target
    shown = f"{100 * target:g} %" if percent else f"{target:g}"
    return f" (target {sign} {shown}: {_word(met)})"


def _word(met):
    return "met" if met else "MISSED"


def measured(bench, rows, minutes, say, peak, claims):
    """Run the rows while there is time; names those that were not reached."""
    end = time.monotonic() + 60 * minutes
    missed = []
    for row in rows:
        left = end - time.monotonic()
        if left < min(row.least, row.budget):
            missed.append(row.name)
            continue
        say(f"{row.name} ({row.budget:.0f} s at most)")
        try:
            within(min(row.budget, left), lambda row=row: shown(row, bench, say, peak, claims))
        except OutOfTimeError:
            say("  stopped: its time is used up")
        except Exception as error:
            say(f"  failed: {type(error).__name__}: {str(error).splitlines()[0]}")
            traceback.print_exc()
        bench.clean_up()
    if missed:
        say(f"not reached, as no time was left: {', '.join(missed)}")


def shown(row, bench, say, peak, claims):
    for line in row.run(bench):
        for text in described(row, line, peak, claims):
            say(text)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", default="cuda")
    options.add_argument("--minutes", type=float, default=9.0, help="of all rows together")
    options.add_argument("--only", action="append", default=[], help="a row by its first words")
    options.add_argument("--out", type=Path, help="file for the table; default in results/")
    options.add_argument("--smoke", action="store_true", help="tiny sizes: only whether it runs")
    given = options.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device is found; --device cpu --smoke runs the rows on tiny sizes")
    if device.type != "cuda" and not given.smoke:
        sys.exit("not a GPU: only --smoke runs here")
    folder = os.environ.get("ROBAUDIT_REAL_DATA")
    if not given.smoke and not folder:
        sys.exit("ROBAUDIT_REAL_DATA does not name the folder with the network and the images")
    started = time.monotonic()
    bench = prepared(device, None if given.smoke else Path(folder))
    peak = peak_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    lines = []

    def say(text):
        print(text, flush=True)
        lines.append(text)

    rows = [row for row in ROWS if not given.only or row.name.startswith(tuple(given.only))]
    try:
        for text in header(bench, peak):
            say(text)
        spent = (time.monotonic() - started) / 60
        measured(bench, rows, given.minutes - spent, say, peak, claims=not given.smoke)
        say(f"\n{time.monotonic() - started:.0f} s in all")
    finally:
        out = given.out
        if out is None and not given.smoke:
            name = "".join(c if c.isalnum() else "-" for c in torch.cuda.get_device_name(device))
            out = RESULTS / f"gpu-{name.lower()}.txt"
        if out is not None:
            out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
