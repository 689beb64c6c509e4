"""``robaudit batch``: a run from its manifest to its tables, and what is refused."""

import json
import os
import subprocess
import sys

import pytest
import torch
from support.batch_runs import finished, linear_network
from support.console import ROBUST, Terminal, robaudit

from robaudit.batch.directory import find
from robaudit.errors import Interrupted


@pytest.fixture
def manifest(place):
    """Two networks of one layer, one of which is listed twice, and a file that is none."""
    (place / "copy.pt").write_bytes((place / "net.pt").read_bytes())
    (place / "other.pt").write_bytes((place / "other_net.pt").read_bytes())
    (place / "broken.pt").write_bytes(b"nothing")
    (place / "models.toml").write_text(
        'preset = "quick"\nn = 8\ngap = false\narch = "nets.py:linear"\nnormalize = "none"\n'
        '[[models]]\nfiles = ["net.pt", "copy.pt", "other.pt", "broken.pt"]\n'
    )
    return place / "models.toml"


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\ndef linear():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    for seed, name in enumerate(("net.pt", "other_net.pt")):
        torch.save(linear_network(seed), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_from_manifest_to_tables(manifest):
    ran = robaudit("batch", "models.toml", "--out", "run", "--workers", 0)
    assert ran.code == 3  # one file is no checkpoint
    assert "2 of 3 jobs done, 1 failed" in ran.out
    assert "the same file as" in ran.out
    assert "[3/3]" in ran.err
    assert "Traceback" not in ran.err
    status = robaudit("batch", "status", "run")
    assert (status.code, status.out) == (0, ran.out)
    board = robaudit("batch", "leaderboard", "run", "--format", "csv").out.splitlines()
    assert len(board) == 1 + 4  # listed twice is shown twice
    again = robaudit("batch", "run", "models.toml", "--out", "run", "--workers", 0, "--quiet")
    assert (again.code, again.err) == (3, "")
    journal = find(manifest.parent / "run").journal
    kinds = [json.loads(line)["event"] for line in journal.read_text().splitlines()]
    assert kinds.count("done") == 2


def test_a_dry_run_writes_nothing_and_counts_only_what_is_left(manifest):
    ran = robaudit("batch", "models.toml", "--out", "run", "--dry-run", "--workers", 0)
    assert ran.code == 0
    assert "2 jobs:" in ran.out
    assert "listed above" in ran.out
    assert not (manifest.parent / "run").exists()
    robaudit("batch", "net.pt", "--out", "run", "--workers", 0, "--preset", "quick", "--n", 8,
             "--no-gap", "--arch", "nets.py:linear", "--normalize", "none", "-q")  # fmt: skip
    ran = robaudit("batch", "models.toml", "--out", "run", "--dry-run", "--workers", 0)
    assert "1 jobs:" in ran.out


def test_globs_and_options_are_a_manifest_too(place):
    words = ("--preset", "quick", "--n", 8, "--no-gap", "--arch", "nets.py:linear", "-q")
    common = ("--out", "run", "--workers", 0, "--normalize", "none", *words)
    ran = robaudit("batch", "*.pt", *common, "--eps", "0.05")
    assert ran.code == 0
    jobs = [row.job for row in find(place / "run").state().rows]
    assert {(job.eps, job.n, job.gap) for job in jobs} == {(0.05, 8, False)}
    assert len(jobs) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("models.toml", "--n", 3), "--n: the manifest models.toml says what is measured"),
        (("models.toml", "--eps", "0.1"), "--eps: the manifest"),
        (("models.toml", "net.pt"), "a manifest stands alone"),
        (("none*.pt",), "no checkpoint is"),
        (("models.toml", "--workers", 0, "--timeout", 5), "--timeout needs a worker"),
        (("models.toml", "--shards", 2), "--shards no longer exists"),
        (("models.toml", "--address", "auto"), "--address is for --engine ray"),
        (("absent.toml",), "No such file"),
    ],
)
def test_what_cannot_be_meant_is_refused(manifest, words, said):
    ran = robaudit("batch", *words, "--out", "run")
    assert ran.code == 2
    assert said in ran.flat
    assert len(ran.err.splitlines()) <= 3  # the hint follows a blank line


@pytest.mark.parametrize("command", ["status", "leaderboard", "study"])
def test_what_is_no_run_is_refused(place, command):
    ran = robaudit("batch", command, ".")
    assert (ran.code, ran.out) == (2, "")
    assert "is no batch run" in ran.err


def test_a_run_of_another_version_is_refused(place, manifest):
    (place / "run").mkdir()
    (place / "run" / "run.json").write_text('{"layout": 1, "schema": 7, "robaudit": "9.0"}')
    ran = robaudit("batch", "models.toml", "--out", "run", "--workers", 0)
    assert ran.code == 4
    assert "written by robaudit 9.0" in ran.err


def test_a_second_driver_is_refused(manifest):
    from robaudit.batch.directory import create
    from robaudit.batch.lock import locked

    with locked(create(manifest.parent / "run").lock):
        ran = robaudit("batch", "models.toml", "--out", "run", "--workers", 0)
    assert ran.code == 2
    assert f"driven by process {os.getpid()}" in ran.err


def test_a_terminal_gets_a_table_that_is_gone_at_the_end(manifest):
    screen = Terminal()
    ran = robaudit("batch", "models.toml", "--out", "run", "--workers", 0, stderr=screen)
    assert ran.code == 3
    assert "jobs done" in screen.getvalue()


def test_interrupted_is_130_and_the_same_command_goes_on(manifest, monkeypatch):
    from robaudit.session import Session

    def interrupt(*_, **__):
        raise Interrupted  # as the signal's handler does

    words = ("batch", "models.toml", "--out", "run", "--workers", 0)
    with monkeypatch.context() as patched:
        patched.setattr(Session, "audit", interrupt)
        ran = robaudit(*words)
    assert ran.code == 130
    assert "what was finished is kept" in ran.err
    assert "2 of 3 jobs done" in robaudit(*words).out


@pytest.mark.slow
def test_leaderboard_and_study_to_files(tmp_path):
    finished(tmp_path / "run", 5)
    page = tmp_path / "board.html"
    ran = robaudit("batch", "leaderboard", tmp_path / "run", "--out", page)
    assert (ran.code, ran.out) == (0, "")
    assert page.read_text().startswith("<!doctype html>")
    for name in ("leaderboard", "study"):
        tables = robaudit("batch", name, tmp_path / "run", "--format", "latex")
        assert tables.code == 0, tables.err
        assert tables.out.count(r"\begin{tabular}") == tables.out.count(r"\end{tabular}") >= 1
    board = robaudit("batch", "leaderboard", tmp_path / "run", "--format", "latex").out
    assert r"\textbf{\num{" in board
    ran = robaudit("batch", "study", tmp_path / "run", "--out", tmp_path / "study")
    assert "WCI" in ran.out
    names = sorted(path.name for path in (tmp_path / "study").iterdir())
    assert {"study.csv", "study.md", "study.png", "study.svg", "study-error.svg"} < set(names)
    ran = robaudit("batch", "leaderboard", tmp_path / "run", "--out", tmp_path / "no" / "x")
    assert (ran.code, ran.out) == (2, "")


def test_reading_a_run_needs_no_torch(tmp_path):
    finished(tmp_path / "run", 4)
    script = """
import sys
from robaudit.cli import command
for words in (["status"], ["leaderboard", "--format", "html"], ["study", "--format", "md"]):
    try:
        command()(args=["batch", words[0], sys.argv[1], *words[1:]], prog_name="robaudit")
    except SystemExit as leaving:
        assert not leaving.code
    heavy = {"torch"} if words[0] == "study" else {"torch", "scipy"}  # scipy draws the bootstrap
    assert not heavy & set(sys.modules), words
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "run")], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROBUST.parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
