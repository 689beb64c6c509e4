"""Makes the outputs in docs/tutorial.md anew, or says where the page differs from them.

    python tools/tutorial.py          writes the page
    python tools/tutorial.py --check  compares: the same words, and numbers that are close

Every ``bash`` block that a ``text`` block follows is run in the checkout, on one thread and in
float32, so that the outputs are the same on every machine but for times and the last digits.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
# A block of one command line, so that nothing else of the page is ever run.
_PAIR = re.compile(
    r"(^```bash\n(?P<command>robaudit [^\n]*)\n```\n\n```text\n)(?P<output>.*?)(?=^```$)",
    re.M | re.S,
)
_NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*")
# Two numbers are close within so much of the larger, or so much in all.
_SHARE, _ALL = 0.2, 3.0


def output_of(command: str) -> str:
    """What a command of the page prints on stdout."""
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    surroundings |= {"ROBAUDIT_PRECISION": "fp32", "ROBAUDIT_DEVICE": "cpu", "NO_COLOR": "1"}
    words = [sys.executable, "-m", *shlex.split(command)]
    done = subprocess.run(  # noqa: S603 - the page's own commands
        words, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=True
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip("\n").splitlines()) + "\n"


def differences(page: str, made: str) -> list[str]:
    """Lines of the page that say something else than those made, but for times and digits."""
    found = []
    one, other = (_lines(text) for text in (page, made))
    if len(one) != len(other):
        return [f"{len(one)} lines on the page, {len(other)} made"]
    for left, right in zip(one, other, strict=True):
        if _words(left) != _words(right) or not _close(left, right, "Seconds" in page):
            found.append(f"- {left}\n+ {right}")
    return found


def _lines(text: str) -> list[str]:
    """Without the last line, which has the time and the machine, and without the file's size."""
    return [" ".join(line.split()) for line in text.splitlines() if " s on cpu" not in line]


def _words(line: str) -> list[str]:
    # Seconds may be too short to be shown, and bars end in other eighths.
    return _NUMBER.sub("", re.sub(r"[▏▎▍▌▋▊▉█±]", "", line)).split()


def _close(left: str, right: str, timed: bool) -> bool:
    # The last number of a row may be its seconds.
    pairs = list(zip(_numbers(left), _numbers(right), strict=False))[: -1 if timed else None]
    return all(abs(a - b) <= max(_ALL, _SHARE * max(abs(a), abs(b))) for a, b in pairs)


def _numbers(line: str) -> list[float]:
    return [float(text.replace(",", "")) for text in _NUMBER.findall(line)]


def main() -> int:
    text = PAGE.read_text("utf-8")
    if "--check" in sys.argv[1:]:
        wrong = [
            line
            for pair in _PAIR.finditer(text)
            for line in differences(pair["output"], output_of(pair["command"]))
        ]
        sys.stdout.write("\n".join(wrong) + "\n" if wrong else "")
        return int(bool(wrong))
    PAGE.write_text(_PAIR.sub(lambda pair: pair[1] + output_of(pair["command"]), text), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
