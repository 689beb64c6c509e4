"""Ctrl-C in the middle of an audit leaves nothing behind, and takes nothing away."""

import os
import signal
import subprocess
import sys

import pytest
from support.console import ROBUST, entries, robaudit

# Shells that run tests in the background have them ignore SIGINT, which children inherit.
PROGRAM = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from robaudit.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to send to one process")
@pytest.mark.parametrize("earlier", [False, True])
def test_an_interrupt(earlier, place):
    place.joinpath("net.py").unlink()
    target = place / "report"
    if earlier:
        assert robaudit("attack", ROBUST, "--n", 8, "--steps", 1, "--out", target).code == 0
    before = {path: (place / path).stat().st_mtime_ns for path in entries(place)}
    running = subprocess.Popen(
        # Far longer than this test may take, if nothing interrupts it.
        [sys.executable, "-c", PROGRAM, "attack", ROBUST, "--steps", "1000000", "--out", target],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROBUST.parents[1])},
    )  # fmt: skip
    try:
        assert "identified by" in running.stderr.readline()
        assert running.poll() is None
        during = set(entries(place)) - set(before)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 130
    assert out == ""
    assert err == "robaudit: interrupted; nothing was written\n"
    assert len(during) == 1, "the folder that the report would have been written to"
    assert {path: (place / path).stat().st_mtime_ns for path in entries(place)} == before
