"""The tutorial's outputs are those that its commands give."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "tutorial.py"
spec = importlib.util.spec_from_file_location("robaudit_tutorial", SCRIPT)
tutorial = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tutorial)
PAIRS = [
    pytest.param(pair["command"], pair["output"], id=pair["command"])
    for pair in tutorial._PAIR.finditer(tutorial.PAGE.read_text("utf-8"))
]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "shown"), PAIRS)
def test_an_output_is_what_the_command_gives(command, shown):
    assert tutorial.differences(shown, tutorial.output_of(command)) == []


def test_all_of_the_page_s_outputs_are_found():
    assert len(PAIRS) == tutorial.PAGE.read_text("utf-8").count("```text")


@pytest.mark.parametrize(
    ("made", "alike"),
    [
        ("PGD-10 84.9 [79.9, 88.9] % 256 12.1\n", True),
        ("PGD-10 34.8 [28.8, 40.9] % 256 0.1\n", False),
        ("PGD-20 84.8 [79.8, 88.9] % 256 0.1\nmore\n", False),
        ("FAB-10 84.8 [79.8, 88.9] % 256 0.1\n", False),
    ],
)
def test_words_are_compared_and_numbers_may_differ_a_little(made, alike):
    made, shown = f"Seconds\n{made}", "Seconds\nPGD-10 84.8 [79.8, 88.9] % 256 0.1\n"
    assert (tutorial.differences(shown, made) == []) == alike
