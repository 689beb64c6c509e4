"""Commands on two devices, for which two threads of the CPU stand."""

import json

import pytest
from support.console import ROBUST, robaudit

from robaudit.engine import several


def measured(command, *words, device):
    ran = robaudit(command, ROBUST, "--json", "--quiet", "--device", device, *words)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def numbers(report):
    report.pop("provenance")
    for found in report["measurements"]:
        found.pop("seconds", None)
    return report


@pytest.fixture
def rounds(monkeypatch):
    """How many rounds had more than one piece."""
    seen = []
    usual = several._at_once

    def counted(devices, work):
        if len(work) > 1:
            seen.append(len(work))
        return usual(devices, work)

    monkeypatch.setattr(several, "_at_once", counted)
    return seen


def test_a_state_goes_on_with_other_devices(place, rounds):
    words = ("--attack", "pgd", "--steps", "3", "--n", "130", "--state", "state")
    alone = measured("attack", *words, device="cpu")
    kept = {path: path.stat().st_mtime_ns for path in place.glob("state/*.safetensors")}
    assert kept
    assert not rounds
    shared = measured("attack", *words, device="cpu,cpu")
    assert {path: path.stat().st_mtime_ns for path in place.glob("state/*.safetensors")} == kept
    assert set(rounds) == {2}  # for the clean accuracy
    assert shared["provenance"]["device"] == "cpu, cpu (1 threads each)"
    assert numbers(shared) == numbers(alone)


@pytest.mark.slow
def test_the_quick_preset_has_the_numbers_of_one_device(rounds):
    alone = measured("audit", "--preset", "quick", "--n", "130", device="cpu")
    assert not rounds
    assert numbers(
        measured("audit", "--preset", "quick", "--n", "130", device="cpu,cpu")
    ) == numbers(alone)
    assert len(rounds) > 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("attack", ROBUST, "--device", "cpu,cuda:0"), "sees no CUDA device"),
        (("attack", ROBUST, "--device", "cpu,"), "unknown device ''"),
        (("train", "digits-standard", "--out", "t", "--device", "cpu,cpu"), "on one device"),
    ],
)
def test_devices_that_are_refused(words, said, place):
    ran = robaudit(*words)
    assert ran.code == 2
    assert said in ran.err
