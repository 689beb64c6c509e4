"""What a new user types by mistake gets the nearest right thing, in one or two lines."""

import json
import shutil
from pathlib import Path

import pytest
from support import console
from support.console import ROBUST, SAMPLES, robaudit

FEW = ("--n", "4", "--quiet")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("wci", "digits", ROBUST), "data, no checkpoint hint: Name it with --data digits"),
        (("wci", "mine.npz", *FEW), "mine.npz is data, no checkpoint"),
        (("gate", "own.toml", ROBUST), "own.toml is a file of options, no checkpoint"),
        (("gate", "own.toml", ROBUST), "A policy is named with --policy own.toml"),
        (("audit", "made"), "made is a report, no checkpoint hint: robaudit report made shows"),
        (("audit", "made/report.json"), "robaudit report made/report.json shows it"),
        (("attack", ROBUST, "--attack", "pdg", *FEW), "did you mean 'pgd'?"),
        (("audit", ROBUST, "--preset", "standrad"), "'paper'; did you mean 'standard'?"),
        (("report", ".", "--format", "htlm"), "; did you mean 'html'?"),
        (("attack", ROBUST, "--norm", "l3"), "'l3' is not one of 'linf', 'l2', 'l1'"),
        (("gate", ROBUST), "no policy robaudit.toml hint: A first one from a report: robaudit"),
    ],
)  # fmt: skip
def test_usage_errors_say_what_was_meant(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text("")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "report.json").write_text("{}")
    ran = robaudit(*words)
    assert ran.code == 2
    assert said in ran.flat


def test_a_file_that_is_not_there_is_named_with_the_nearest_one():
    ran = robaudit("wci", SAMPLES / "robst.pt", *FEW)
    assert ran.code == 4
    assert "did you mean 'robust.pt'?" in ran.err


def test_a_checkpoint_in_a_reports_place_says_how_it_becomes_one():
    ran = robaudit("report", ROBUST)
    assert ran.code == 4
    assert "robaudit audit CKPT --out DIR writes a report" in ran.err


def checkpoint(report):
    return Path(report["subject"]["source"]).name


def test_a_quoted_pattern_is_every_file_that_it_matches(tmp_path):
    for name in ("b", "a", "[c]"):
        shutil.copy(ROBUST, tmp_path / f"{name}.pt")
    (tmp_path / "a.pt.toml").write_text('architecture = "digits_resnet"')
    ran = robaudit("attack", tmp_path / "*.pt*", "--attack", "clean", *FEW, "--json")
    assert [checkpoint(report) for report in json.loads(ran.out)] == ["[c].pt", "a.pt", "b.pt"]
    ran = robaudit("attack", tmp_path / "[c].pt", "--attack", "clean", *FEW, "--json")
    assert checkpoint(json.loads(ran.out)) == "[c].pt"


def test_checkpoints_that_are_alike_are_one_line(tmp_path):
    for name in ("one", "two", "three"):
        shutil.copy(ROBUST, tmp_path / f"{name}.pt")
    words = ("--attack", "clean", "--n", "4")
    alike = robaudit("attack", *sorted(tmp_path.glob("*.pt")), *words)
    assert alike.err.count("digits_resnet") == 1
    other = console.SAMPLES / "smooth.safetensors"
    mixed = robaudit("attack", tmp_path / "one.pt", other, tmp_path / "two.pt", *words)
    assert [line.split(":")[1].split("/")[-1] for line in mixed.err.splitlines()] == [
        "one.pt", "smooth.safetensors", "two.pt",
    ]  # fmt: skip
