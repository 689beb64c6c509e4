"""A command that is told where each report is."""

import json
import sys

import pytest
from support.console import ROBUST, robaudit

QUICK = ("--data", "digits", "--n", "8", "--attack", "clean")
SCRIPT = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
with open("told.txt", "a") as told:
    told.write(f"{folder.name} {(folder / 'report.json').is_file()}\\n")
print("said by the script")
sys.exit(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
"""


@pytest.fixture
def script(place):
    (place / "tell.py").write_text(SCRIPT)
    return f'"{sys.executable}" tell.py'


def test_it_is_told_of_every_report_once_it_is_written(place, script):
    for name in ("one.pt", "two.pt"):
        (place / name).write_bytes(ROBUST.read_bytes())
    done = robaudit(
        "attack", "one.pt", "two.pt", *QUICK, "--out", "out", "--on-result", script, "--json"
    )
    assert done.code == 0
    assert (place / "told.txt").read_text().splitlines() == ["one True", "two True"]
    assert len(json.loads(done.out)) == 2  # what the script says is not on stdout


def test_a_batch_tells_of_every_job(place, script):
    (place / "model.pt").write_bytes(ROBUST.read_bytes())
    (place / "m.toml").write_text(
        'preset = "quick"\nn = 8\ndata = "digits"\n[[models]]\nfiles = "model.pt"\n'
    )
    robaudit("batch", "m.toml", "--out", "run", "--workers", "0", "--on-result", script)
    assert (place / "told.txt").read_text() == "report True\n"


def test_one_that_fails_is_a_message_and_the_report_is_there(place):
    (place / "tell.py").write_text("raise SystemExit(7)")
    command = f'"{sys.executable}" tell.py'
    done = robaudit("attack", ROBUST, *QUICK, "--out", "out", "--on-result", command)
    assert done.code == 0
    assert "it ended with 7" in done.err
    assert (place / "out" / "report.json").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--on-result", "no-such-program x", "--out", "out"), "no such command"),
        (("--on-result", "python 'x", "--out", "out"), "quotation"),
        (("--on-result", "python x.py"), "needs --out"),
    ],
)
def test_what_cannot_run_is_refused_before_the_audit(place, options, said):
    done = robaudit("attack", ROBUST, *QUICK, *options)
    assert done.code == 2
    assert said in done.err
    assert not (place / "out").exists()
