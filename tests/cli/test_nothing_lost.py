"""What was measured and decided is there, whatever a name, a disk or a policy does."""

import errno
import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.console import ROBUST, SAMPLES, robaudit

from robaudit.cli.gate_files import GateFiles
from robaudit.gate.unfinished import unfinished
from robaudit.report import read_report
from robaudit.report.folder import PICTURES
from robaudit.schema import Verdict, unicode

STANDARD = SAMPLES / "standard.pt"
QUICK = ("--n", 8, "--steps", 1, "--attack", "pgd", "-q", "--device", "cpu")
POLICY = (
    '[gate]\ndata = "digits"\nn = 33\npreset = "quick"\n[gate.metrics."accuracy.pgd"]\nmin = 0.1\n'
)
FILES = ("--junit", "j.xml", "--sarif", "s.sarif", "--summary", "m.md", "--out", "out")


@pytest.fixture(autouse=True)
def no_summary(monkeypatch):
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def odd(place):
    """A checkpoint whose name is no text."""
    name = os.fsdecode(b"rob\xff<&.pt")
    try:
        (place / name).write_bytes(ROBUST.read_bytes())
    except OSError:
        pytest.skip("the file system takes no such name")
    return name


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are text")
class TestAnOddName:
    def test_costs_no_report(self, odd, place):
        ran = robaudit("attack", odd, STANDARD, *QUICK, "--eps", "0.05,0.1", "--out", "rep")
        assert (ran.code, ran.err) == (0, "")
        page = (place / "rep" / "index.html").read_text()
        assert 'href="./rob%FF%3C%26/report.html"' in page
        folder = place / "rep" / os.fsdecode(b"rob\xff<&")
        assert read_report(folder).subject.source == "rob%FF<&.pt"
        for name in ("report.html", "report.md", "measurements.csv"):
            assert "rob%FF" in (folder / name).read_text(encoding="utf-8")
        for kind in ("table", "json", "csv", "md"):
            again = robaudit("report", place / "rep", "--format", kind)
            assert again.code == 0
            assert "rob%FF" in again.out
            again.out.encode()
        assert robaudit("report", place / "rep", "--format", "html", "--out", "all.html").code == 0

    def test_costs_no_verdict(self, odd, place):
        (place / "robaudit.toml").write_text(POLICY)
        ran = robaudit("gate", odd, ROBUST, "-q", *FILES)
        assert (ran.code, ran.err) == (0, "")
        assert [v["subject"]["source"] for v in json.loads(Path("out/verdicts.json").read_text())] \
            == ["rob%FF<&.pt", str(ROBUST)]  # fmt: skip
        suites = ElementTree.parse("j.xml").getroot().findall("testsuite")
        assert suites[0].get("name") == "rob%FF<&.pt"
        json.loads(Path("s.sarif").read_text(encoding="utf-8"))
        assert "rob%FF" in Path("m.md").read_text(encoding="utf-8")

    def test_costs_no_inspection(self, odd):
        assert json.loads(robaudit("inspect", odd, "--json").out)["path"] == "rob%FF<&.pt"
        assert robaudit("inspect", odd).code == 0


def test_bytes_that_are_no_text_are_spelled_out():
    assert unicode("plain é") == "plain é"
    assert unicode({"a": [os.fsdecode(b"x\xff\x80")]}) == {"a": ["x%FF%80"]}
    unicode("\ud800").encode()


# A disk that is full


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "where", ["robaudit.report.folder.write_report", "robaudit.report.folder.swap"]
)
def test_a_full_disk_leaves_the_report_on_the_screen(where, place, monkeypatch):
    monkeypatch.setattr(where, full)
    ran = robaudit("attack", ROBUST, *QUICK, "--out", "rep", "--json")
    assert ran.code == 2
    assert "No space left on device" in ran.err
    assert json.loads(ran.out)["measurements"][0]["status"] == "ok"
    assert not [path for path in place.iterdir() if "rep" in path.name]


def test_a_file_that_cannot_be_made_takes_no_other_along(place, monkeypatch):
    def broken(*_):
        raise ValueError("no such colour")

    monkeypatch.setitem(PICTURES, "curvature", broken)
    ran = robaudit("attack", ROBUST, *QUICK, "--out", "rep")
    assert ran.code == 5
    assert "curvature could not be made: ValueError: no such colour" in ran.err
    assert (place / "rep" / "report.html").is_file()
    assert read_report(place / "rep").get("accuracy.pgd").status == "ok"


# A gate that cannot run


@pytest.mark.parametrize(
    ("policy", "checkpoint", "code", "reason"),
    [
        ("[gate", ROBUST, 2, "is not TOML"),
        (None, ROBUST, 2, "no policy robaudit.toml"),
        (POLICY + 'severity = "odd"\n', ROBUST, 2, "severity"),
        (POLICY, "nosuch.pt", 4, "no such file"),
        (POLICY, "torn.pt", 4, "torn.pt"),
        (POLICY.replace('"digits"', '"nosuch.npz"'), ROBUST, 4, "nosuch.npz"),
        (POLICY + 'severity = "warning"\n', "nosuch.pt", 4, "no such file"),
        (POLICY.replace("min = 0.1", "max_drop = 0.1"), ROBUST, 2, "baseline"),
    ],
)
def test_a_gate_that_cannot_run_says_why_in_every_file(policy, checkpoint, code, reason, place):
    (place / "torn.pt").write_bytes(b"PK\x03\x04 torn")
    if policy is not None:
        (place / "robaudit.toml").write_text(policy)
    ran = robaudit("gate", checkpoint, "-q", *FILES)
    assert ran.code == code
    junit = ElementTree.parse(place / "j.xml").getroot()
    assert int(junit.get("errors")) >= 1
    assert reason in "".join(error.text for error in junit.iter("error"))
    sarif = json.loads((place / "s.sarif").read_text())["runs"][0]
    assert sarif["invocations"][0]["executionSuccessful"] is False
    assert "inconclusive" in (place / "m.md").read_text()
    (verdict,) = json.loads((place / "out" / "verdicts.json").read_text())
    found = Verdict.model_validate(verdict)
    assert found.outcome == "inconclusive"
    assert reason in found.decisions[0].reason


def test_a_summary_keeps_what_others_wrote(tmp_path):
    path = tmp_path / "m.md"
    path.write_text("before\n")
    files = GateFiles(summary=path)
    draft = [unfinished("a.pt", None, Path("p.toml"), "not finished yet")]
    files.begin(draft)
    assert "not finished yet" in path.read_text()
    assert files.end([unfinished("a.pt", None, Path("p.toml"), "the end")]) == []
    assert path.read_text().startswith("before\n")
    assert path.read_text().count("<!-- robaudit-gate -->") == 1
    assert "not finished yet" not in path.read_text()
