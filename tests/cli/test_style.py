"""The rules of docs/explanation/cli-style.md that can be held."""

import json
import os
import re
import subprocess
import sys

import pytest
from support.console import ROBUST, robaudit

ROOT = ROBUST.parents[1]
WRONG = {
    "no such file": ("audit", "none.pt"),
    "no policy": ("gate", ROBUST),
    "no baseline": ("gate", ROBUST, "--policy", "drop.toml", "--quiet"),
    "no report": ("report", "nowhere"),
    "a network for a guess": ("attack", ROBUST, "--arch", "resnet5"),
    "no data": ("attack", ROBUST, "--data", "digit"),
    "a file that is there": ("init", ROBUST, "--file", "drop.toml"),
    "no recipe": ("train", "digits-att", "--out", "run"),
}
DROP = '[gate]\ndata = "digits"\n[gate.metrics."accuracy.pgd"]\nmax_drop = 0.1\n'


@pytest.mark.parametrize("words", WRONG.values(), ids=WRONG.keys())
def test_a_refusal_is_a_message_and_a_hint_on_stderr(words, place):
    (place / "drop.toml").write_text(DROP)
    ran = robaudit(*words)
    assert ran.code in (2, 4)
    assert ran.out == ""
    message, blank, hint = ran.err.splitlines()
    assert message.startswith("robaudit: ")
    assert (blank, hint[:6]) == ("", "hint: ")
    assert not message.endswith((".", "!"))
    assert hint.endswith((".", "baseline.")) or "robaudit" in hint


def run(place, *words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "robaudit", *map(str, words)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def test_json_alone_is_on_stdout_and_nothing_is_coloured(place):
    words = ("attack", ROBUST, "--n", 8, "--attack", "clean", "--data", "digits")
    done = run(place, *words, "--json")
    assert json.loads(done.stdout)["measurements"]
    assert "robaudit: " in done.stderr  # notes
    table = run(place, *words, "--quiet")
    assert table.stderr == ""
    assert re.findall(r"\x1b\[", table.stdout + done.stdout + done.stderr) == []
    assert max(map(len, table.stdout.splitlines())) <= 100
