"""Streams that are closed, full or left, and processes that are ended: as real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest
from support.console import ROBUST, SAMPLES, entries

pytestmark = pytest.mark.skipif(
    not os.path.exists("/dev/full"),  # noqa: PTH110
    reason="needs a POSIX shell and /dev/full",
)
RULE = (
    '[gate]\ndata = "digits"\nn = 33\npreset = "quick"\n[gate.metrics."accuracy.pgd"]\nmin = {}\n'
)
PASSING, FAILING = RULE.format(0.1), RULE.format(0.99)
PROGRAM = "from robaudit.cli import main; main()"


def environment():
    found = {key: value for key, value in os.environ.items() if not key.startswith("ROBAUDIT_")}
    found.pop("GITHUB_STEP_SUMMARY", None)
    return {**found, "PYTHONPATH": str(ROBUST.parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def shell(place):
    """Runs ``R``, the program, in a shell; its own exit code is what counts in a pipe."""

    def of(line):
        (place / "run").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{PROGRAM}" "$@"\n')
        (place / "run").chmod(0o755)
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line.replace("R ", "./run ", 1)],
            capture_output=True, text=True, cwd=place, env=environment(),
        )  # fmt: skip

    return of


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("R schema >&-", 0, ""),
        ("R schema 2>&-", 0, ""),
        ("R schema <&- >&- 2>&-", 0, ""),
        ("R schema >/dev/full", 2, "cannot write to standard output: No space left on device"),
        ("R --help >/dev/full", 2, "No space left on device"),
        ("R schema | true", 0, ""),
        ("R schema | head -1", 0, ""),
        ("R inspect nosuch.pt >&- 2>&-", 4, ""),
        ("R inspect nosuch.pt 2>/dev/full", 4, ""),
        ("R nosuch 2>&-", 2, ""),
    ],
)
def test_a_stream_that_is_closed_full_or_left(line, code, said, shell):
    ran = shell(line)
    assert ran.returncode == code
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "internal" not in ran.stderr
    if not said:
        assert ran.stderr == ""


@pytest.mark.slow
def test_a_file_that_is_opened_does_not_become_a_closed_stream(shell, place):
    ran = shell(f"R inspect {ROBUST} --json >&- 2>&-; R report nosuch >&- 2>&-; true")
    assert ran.returncode == 0
    ran = shell(f"R attack {ROBUST} --n 8 --steps 1 --attack pgd --out out >&- 2>&-")
    assert ran.returncode == 0
    assert json.loads((place / "out" / "report.json").read_text())["data"]["n"] == 8
    assert (place / "out" / "report.md").read_text().startswith("#")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "redirection", "code"),
    [
        (PASSING, "| true", 0),
        (PASSING, "| head -1", 0),
        (FAILING, "| true", 1),
        (PASSING, ">&- 2>&-", 0),
        (FAILING, ">&- 2>&-", 1),
        (PASSING, ">/dev/full", 2),
        (FAILING, ">/dev/full", 1),
        (PASSING, "--summary /dev/full", 2),
        (PASSING, "--sarif /dev/full --out full", 2),
    ],
)
def test_a_verdict_and_its_files_do_not_hang_on_the_screen(policy, redirection, code, shell, place):
    (place / "robaudit.toml").write_text(policy)
    ran = shell(f"R gate {ROBUST} -q --junit j.xml --device cpu {redirection}")
    assert ran.returncode == code, ran.stderr
    assert "internal" not in ran.stderr
    outcomes = ElementTree.parse(place / "j.xml").getroot()
    assert outcomes.get("failures") == str(int(policy is FAILING))
    assert outcomes.get("errors") == "0"
    assert ("No space left on device" in ran.stderr) == ("/dev/full" in redirection)
    if "--out" in redirection:
        assert json.loads((place / "full" / "verdicts.json").read_text())


DYING = """
import os, signal, sys
from robaudit.checkpoints.architectures.layers import Network
from robaudit.checkpoints.architectures.residual_families import digits_resnet


class Dying(Network):
    def forward(self, x):
        if bool(((x * 16 - (x * 16).round()).abs() > 1e-4).any()):
            WHAT
        return super().forward(x)


def made():
    network = digits_resnet()
    network.__class__ = Dying
    return network
"""
ENDS = {
    "os._exit(0)": (0, "did not finish"),
    "raise SystemExit(0)": (3, "SystemExit: 0"),
    "sys.exit()": (3, "SystemExit"),
    "raise KeyboardInterrupt": (3, "KeyboardInterrupt"),
    "raise GeneratorExit": (3, "GeneratorExit"),
    "os.kill(os.getpid(), signal.SIGKILL)": (-signal.SIGKILL, "did not finish"),
    "os.kill(os.getpid(), signal.SIGTERM)": (130, "interrupted"),
    "os.kill(os.getpid(), signal.SIGINT)": (130, "interrupted"),
}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS)
def test_a_gate_leaves_an_error_however_its_process_ends(end, place):
    code, said = ENDS[end]
    (place / "dying.py").write_text(DYING.replace("WHAT", end))
    (place / "robaudit.toml").write_text(PASSING)
    (place / "j.xml").write_text('<testsuites errors="0"/>')  # of an earlier run that passed
    (place / "m.md").write_text("before\n")
    words = [
        "gate", str(SAMPLES / "standard.pt"), "--arch", "dying.py:made", "--normalize", "none",
        "-q", "--junit", "j.xml", "--sarif", "s.sarif", "--summary", "m.md", "--out", "out",
        "--device", "cpu",
    ]  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True, text=True, cwd=place, env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert ran.returncode == code, ran.stderr
    assert "internal" not in ran.stderr
    junit = ElementTree.parse(place / "j.xml").getroot()
    assert junit.get("errors") == "1"
    assert said in junit.find(".//error").text
    sarif = json.loads((place / "s.sarif").read_text())["runs"][0]
    assert sarif["invocations"][0]["executionSuccessful"] is False
    assert (place / "m.md").read_text().startswith("before\n")
    assert said in (place / "m.md").read_text().replace("\\", "")
    (verdict,) = json.loads((place / "out" / "verdicts.json").read_text())
    assert said in verdict["decisions"][0]["reason"]
    assert not [path for path in entries(place) if ".draft-" in path]


def started(place, *words):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=place, env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def hidden(place):
    return [path for path in entries(place) if path.startswith(".")]


@pytest.mark.slow
def test_what_a_killed_run_leaves_the_next_one_removes(place):
    long = ("attack", str(ROBUST), "--steps", "1000000", "--attack", "pgd", "--out", "rep")
    for number, left in ((signal.SIGTERM, 0), (signal.SIGKILL, 1)):
        running = started(place, *long)
        try:
            assert "identified by" in running.stderr.readline()
            assert len(hidden(place)) == 1
            running.send_signal(number)
            _, err = running.communicate(timeout=120)
        finally:
            running.kill()
        assert running.returncode == (130 if number == signal.SIGTERM else -number)
        assert len(hidden(place)) == left
        assert ("interrupted; nothing was written" in err) == (not left)
    others = [place / ".rep.1-00000000-0badcafe", place / ".rep.note", place / ".other.x"]
    for folder in others:  # another machine's, and nobody's
        folder.mkdir()
    living = started(place, *long)
    try:
        assert "identified by" in living.stderr.readline()
        during = {path.name for path in place.glob(".rep.*")} - {path.name for path in others}
        assert len(during) == 1, "the dead one's is gone, the living one's is there"
        ran = started(place, "attack", str(ROBUST), "--steps", "1", "--n", "8", "--attack", "pgd",
                      "--out", "rep")  # fmt: skip
        ran.communicate(timeout=120)
        assert ran.returncode == 0
        assert (place / "rep" / "report.json").is_file()
        assert {path.name for path in place.glob(".rep.*")} == during | {
            path.name for path in others if path.name.startswith(".rep")
        }
    finally:
        living.kill()
        living.communicate()


@pytest.mark.slow
def test_an_interrupt_says_what_is_kept_and_how_to_go_on(place):
    words = ("attack", str(ROBUST), "--n", "256", "--attack", "pgd,autoattack", "--steps", "5",
             "--restarts", "1", "--state", "kept")  # fmt: skip
    running = started(place, *words)
    try:
        until = time.monotonic() + 120
        while not list(place.glob("kept/[!.]*.safetensors")) and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "nothing was written" not in err
    assert "kept in kept" in err
    assert "The same command goes on from there." in err
