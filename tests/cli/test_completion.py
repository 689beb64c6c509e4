"""What the shell completes, asked for as bash does."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from support.console import ROBUST

from robaudit.cli.completion import listed, zoo_names

ROOT = ROBUST.parents[1]


@pytest.mark.parametrize(
    ("words", "found", "left_out"),
    [
        ("audit x.pt --data ci", {"cifar10", "cifar100", "cifar10-c", "cifar100-c"}, {"mnist"}),
        ("audit x.pt --preset ", {"quick", "standard", "paper"}, set()),
        ("audit x.pt --also ca", {"calibration"}, {"pgd"}),
        ("attack x.pt --attack pgd,f", {"pgd,fast", "pgd,fab"}, {"fast"}),
        ("train digits-", {"digits-at"}, {"trades-awp"}),
        ("ba", {"batch"}, {"audit"}),
        ("audit sample_check", set(), {"robustbench:"}),
    ],
)
def test_words_are_completed(words, found, left_out):
    words = f"robaudit {words}"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "robaudit"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            **asked,
            "_ROBAUDIT_COMPLETE": "complete_bash",
            "PYTHONPATH": str(ROOT),
        },
    )
    assert done.returncode == 0, done.stderr[-500:]
    said = set(done.stdout.split())
    assert found <= said
    assert not left_out & said
    assert "| torch\n" not in done.stderr  # or every press of the key would take seconds


def test_a_name_is_not_offered_twice_in_a_list():
    assert listed(("pgd", "fast", "fab"))("pgd,fast,") == ["pgd,fast,fab"]


def test_entries_of_a_zoo():
    assert zoo_names("robustb") == ["robustbench:"]
    if find_spec("robustbench") is None:
        pytest.skip("RobustBench is not installed")
    found = zoo_names("robustbench:cifar10/Linf/St")
    assert "robustbench:cifar10/Linf/Standard" in found
