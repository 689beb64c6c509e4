"""The command in a report gives its numbers again, wherever its options came from."""

import json
import shlex
import sys

from support.console import ROBUST, robaudit


def run(monkeypatch, words):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/robaudit", *words])
    ran = robaudit(*words)
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def values(report):
    return [(m["name"], m["value"]) for m in report["measurements"]]


def test_options_of_a_file_and_of_the_environment_are_written_out(tmp_path, monkeypatch):
    (tmp_path / "o.toml").write_text('steps = 2\neps = ["0.05", "0.1"]\nquiet = true\n')
    monkeypatch.setenv("ROBAUDIT_N", "9")
    monkeypatch.setenv("ROBAUDIT_SEED", "5")
    words = ["attack", str(ROBUST), "--config", str(tmp_path / "o.toml"), "--json", "--seed", "3"]
    first = run(monkeypatch, words)
    argv = first["provenance"]["argv"]
    assert argv[:2] == ["robaudit", "attack"]
    assert not any("config" in word for word in argv)
    assert argv.count("--seed") == 1
    monkeypatch.delenv("ROBAUDIT_N")
    monkeypatch.delenv("ROBAUDIT_SEED")
    again = run(monkeypatch, argv[1:])
    assert values(again) == values(first)
    assert again["provenance"]["argv"] == argv
    assert first["data"]["n"] == 9
    assert first["provenance"]["seed"] == 3


def test_a_flag_that_is_off_is_written_out(tmp_path, monkeypatch):
    (tmp_path / "o.toml").write_text("gap = false\nn = 5\n")
    words = ["wci", str(ROBUST), f"--config={tmp_path / 'o.toml'}", "--json", "--quiet"]
    argv = run(monkeypatch, words)["provenance"]["argv"]
    assert "--no-gap" in argv
    assert shlex.join(argv).count("o.toml") == 0


def test_the_arguments_of_the_process_are_as_before(monkeypatch):
    words = ["attack", str(ROBUST), "--n", "4", "--attack", "clean", "--json", "--quiet"]
    run(monkeypatch, words)
    assert sys.argv[0] == "/somewhere/bin/robaudit"
