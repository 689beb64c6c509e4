"""`robaudit compare`: folders, checkpoints, and what is neither."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys

import pytest
from support.console import ROBUST, SAMPLES, robaudit

ATTACK = ("--n", 12, "--steps", 2, "--device", "cpu", "-q")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The report folders of two samples on the same digits."""
    place = tmp_path_factory.mktemp("compared")
    for name in ("robust", "standard"):
        ran = robaudit("attack", SAMPLES / f"{name}.pt", *ATTACK, "--out", place / name)
        assert ran.code == 0, ran.err
    return place / "robust", place / "standard"


def test_every_format(folders, place):
    table = robaudit("compare", *folders)
    assert (table.code, table.err) == (0, "")
    assert table.out.startswith("robaudit: robust and standard\n")
    assert "Clean accuracy" in table.out
    for format, marks in (
        ("table", "Robust accuracy, PGD-2"),
        ("json", '"how": "paired"'),
        ("csv", "accuracy.pgd,paired"),
        ("md", "| Robust accuracy, PGD-2 |"),
        ("latex", "Robust accuracy, PGD-2 & "),
        ("html", "<!doctype html>"),
    ):
        ran = robaudit("compare", *folders, "--format", format)
        written = robaudit("compare", *folders, "--format", format, "--out", "file")
        assert (ran.code, written.code, written.out) == (0, 0, "")
        assert marks in ran.out
        text = (place / "file").read_text(encoding="utf-8")
        assert [line.rstrip() for line in text.splitlines()] == [
            line.rstrip() for line in ran.out.splitlines()
        ]


def test_reports_may_be_named_as_files(folders):
    files = [folder / "report.json" for folder in folders]
    assert robaudit("compare", *files).out == robaudit("compare", *folders).out


@pytest.mark.slow
def test_checkpoints_are_audited_first(place):
    words = ("--n", 4, "--preset", "quick", "-q", "--format", "csv")
    ran = robaudit("compare", ROBUST, SAMPLES / "standard.pt", *words)
    assert (ran.code, ran.err) == (0, "")
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(ran.out))}
    assert (rows["accuracy.pgd"]["how"], rows["wci"]["how"]) == ("paired", "not paired")
    assert [path.name for path in place.iterdir()] == ["net.py"]  # nothing is left behind


def test_a_measurement_that_failed(place, linear):
    words = ("--arch", "net.py:fragile", "--normalize", "none", "--n", 4, "-q")
    ran = robaudit("compare", linear, linear, *words)
    assert ran.code == 3
    assert "not comparable" in ran.out
    assert "Not comparable: Robust accuracy" in ran.out


def test_out_is_looked_at_before_any_work(place):
    ran = robaudit("compare", "a.pt", "b.pt", "--out", place / "none" / "c.md")
    assert (ran.code, ran.out) == (2, "")
    assert "no such folder" in ran.err


def test_a_report_and_a_checkpoint(folders):
    ran = robaudit("compare", folders[0], ROBUST)
    assert (ran.code, ran.out) == (2, "")
    assert "two report folders, or two checkpoints" in ran.err


def test_other_examples(folders, place):
    shutil.copytree(folders[1], "other")
    report = json.loads((place / "other" / "report.json").read_text())
    report["data"]["sha256"] = "00" * 32
    (place / "other" / "report.json").write_text(json.dumps(report))
    ran = robaudit("compare", folders[0], "other")
    assert (ran.code, ran.out) == (2, "")
    assert "different examples" in ran.err
    assert "\n\nhint: Audit both" in ran.err


def test_what_is_not_there(place):
    ran = robaudit("compare", "nowhere.json", "nowhere.json")
    assert (ran.code, ran.out) == (2, "")
    assert "no report at nowhere.json" in ran.err


def test_folders_need_no_torch(folders):
    script = (
        "import sys\n"
        "from robaudit.cli import command\n"
        "try: command()(args=sys.argv[1:], prog_name='robaudit')\n"
        "except SystemExit as leaving: assert not leaving.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "compare", *map(str, folders)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROBUST.parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "robust and standard" in done.stdout
