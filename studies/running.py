"""What all studies share: models trained by `robaudit train`, results kept, a budget of time."""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from robaudit.cli import command
from robaudit.whole_file import write_whole

Row = dict[str, Any]


class OutOfTimeError(Exception):
    """The budget is spent; what is done is kept."""


class Study:
    """A folder of results, and the time that is left."""

    def __init__(self, out: Path, minutes: float, smoke: bool) -> None:
        self.out, self.smoke = out, smoke
        self._end = time.monotonic() + 60 * minutes
        out.mkdir(parents=True, exist_ok=True)

    def train(self, name: str, recipe: str, *words: object) -> Path:
        """The folder of a run that has ended, begun or gone on with where it has not.

        Raises:
            OutOfTimeError: it has not ended in time; it goes on there the next time.
        """
        self.check()
        file = self.out / f"{name}.toml"
        file.write_text(recipe, "utf-8")
        args = ["train", str(file), "--out", str(self.out / name), "--quiet", *map(str, words)]
        with self._alarm():
            try:
                command()(args=args, prog_name="robaudit")
            except SystemExit as end:
                if end.code == 130:
                    raise OutOfTimeError from None
                if end.code:
                    raise
        return self.out / name

    def once(self, name: str, measure: Callable[[], Row]) -> Row:
        """The result of that name, measured where it is not there yet."""
        path = self.out / f"{name}.json"
        if not path.is_file():
            self.check()
            write_whole(path, json.dumps(measure(), indent=1).encode())
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
) -> int:
    """Read the command line, run as far as the time goes, and report what is there."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--out", type=Path, required=True, help="results; the same folder goes on")
    parser.add_argument("--minutes", type=float, default=60, help="stop beginning work after that")
    parser.add_argument("--smoke", action="store_true", help="everything once, as small as can be")
    given = parser.parse_args(words)
    torch.set_num_threads(1)
    study = Study(given.out, given.minutes, given.smoke)
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
