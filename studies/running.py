"""What all studies share: models trained by `robaudit train`, results kept, a budget of time."""

from __future__ import annotations

import argparse
import io
import json
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from scipy.special import stdtrit

from robaudit.atomic_write import atomic_write
from robaudit.cli import command

Row = dict[str, Any]


class OutOfTimeError(Exception):
    """The budget is spent; what is done is kept."""


class Study:
    """A folder of results, the options it was asked for with, and the time that is left."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.out, self.smoke = given, given.out, given.smoke
        self._end = time.monotonic() + 60 * given.minutes
        self.out.mkdir(parents=True, exist_ok=True)

    def train(self, name: str, recipe: str, *words: object) -> Path:
        """The folder of a run that has ended, begun or gone on with where it has not.

        Raises:
            OutOfTimeError: it has not ended in time; it goes on there the next time.
        """
        self.check()
        file = self.out / f"{name}.toml"
        file.write_text(recipe, "utf-8")
        self.robaudit("train", file, "--out", self.out / name, "--quiet", *words)
        return self.out / name

    def robaudit(self, *words: object) -> None:
        """Run a command without its tables, as far as the time goes.

        Raises:
            OutOfTimeError: it was interrupted; it goes on the next time.
        """
        self.check()
        with self._alarm(), redirect_stdout(io.StringIO()):
            try:
                command()(args=list(map(str, words)), prog_name="robaudit")
            except SystemExit as end:
                if end.code == 130:
                    raise OutOfTimeError from None
                if end.code:
                    raise

    def once(self, name: str, measure: Callable[[], Row]) -> Row:
        """The result of that name, measured where it is not there yet."""
        path = self.out / f"{name}.json"
        if not path.is_file():
            self.check()
            atomic_write(path, json.dumps(measure(), indent=1).encode())
            print(f"{name} done", flush=True)
        found: Row = json.loads(path.read_text("utf-8"))
        return found

    def check(self) -> None:
        """Raise where no time is left."""
        if time.monotonic() > self._end:
            raise OutOfTimeError

    @contextmanager
    def _alarm(self):
        def ring(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, max(0.01, self._end - time.monotonic()))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def main(
    about: str,
    run: Callable[[Study], None],
    report: Callable[[Study], None],
    words: Sequence[str] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> int:
    """Read the command line, run as far as the time goes, and report what is there.

    ``options`` are a study's own, as argparse takes them.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--out", type=Path, required=True, help="results; the same folder goes on")
    parser.add_argument("--minutes", type=float, default=60, help="stop beginning work after that")
    parser.add_argument("--smoke", action="store_true", help="everything once, as small as can be")
    for name, option in (options or {}).items():
        parser.add_argument(name, **option)
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    study = Study(given)
    whole = True
    try:
        run(study)
    except OutOfTimeError:
        whole = False
        print("out of time; the same command goes on")
    report(study)
    return 0 if whole else 1


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table; floats with three digits."""
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for row in rows:
        cells = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    middle = f"{fmean(values):.3g}"
    return f"{middle} ±{stdev(values):.2g}" if len(values) > 1 else middle


def interval(values: Sequence[float]) -> str:
    """The mean with Student's 95 % interval, the seeds being the sample."""
    if not values:
        return ""
    middle = fmean(values)
    if len(values) == 1:
        return f"{middle:.3g}"
    half = stdtrit(len(values) - 1, 0.975) * stdev(values) / math.sqrt(len(values))
    return f"{middle:.3g} [{middle - half:.3g}, {middle + half:.3g}]"


def pyplot() -> Any:
    """matplotlib's, which then writes the same picture twice as the same bytes."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "robaudit"
    from matplotlib import pyplot as plt

    return plt
