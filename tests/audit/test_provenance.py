"""A report says how to get its numbers again."""

import hashlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import torch
from support.console import ROBUST

import robaudit
from robaudit.audit import Plan, audit


@pytest.fixture
def report(robust, few, train, threat):
    """The lightest audit there is."""

    def made(**settings):
        return audit(robust, few, threat, Plan(), train=train, **settings).report

    return made


def test_what_was_run_and_by_what(report, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["robaudit", "attack", "robust.pt"])
    found = report(seed=7, batch_size=3)
    how = found.provenance
    assert how.argv == ["robaudit", "attack", "robust.pt"]
    assert (how.seed, how.batch_size, how.precision) == (7, 3, "fp32")
    assert how.device.startswith("cpu")
    assert how.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert how.versions["numpy"] == np.__version__
    assert how.versions["robaudit"] == found.robaudit == robaudit.__version__
    assert how.seconds >= sum(m.seconds or 0 for m in found.measurements) > 0
    started = datetime.strptime(how.started, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert timedelta(0) <= datetime.now(UTC) - started < timedelta(hours=1)


def test_which_file_and_which_data(report, few, train, robust):
    found = report()
    subject = found.subject
    assert subject.source == str(ROBUST)
    assert subject.sha256 == hashlib.sha256(ROBUST.read_bytes()).hexdigest()
    assert (subject.architecture, subject.normalization) == ("digits_resnet", "none")
    assert subject.parameters == sum(p.numel() for p in robust.parameters())
    assert (found.data.name, found.data.split, found.data.n) == ("digits", "test", 32)
    assert (found.data.sha256, found.train_data.sha256) == (few.sha256, train.sha256)
    assert (found.train_data.split, found.data.classes) == ("train", 10)
    assert (found.threat.norm, found.threat.eps) == ("linf", 0.15)


def test_the_commit_of_the_working_directory(report, tmp_path, monkeypatch):
    def git(*words):
        return subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e@x", *words],
            check=True, capture_output=True, text=True, cwd=tmp_path,
        ).stdout.strip()  # fmt: skip

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert report().provenance.git is None
    git("init", "-q")
    git("commit", "-q", "--no-gpg-sign", "--allow-empty", "-m", "first")
    found = report().provenance.git
    assert (found.commit, found.dirty) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "file").write_text("new")
    assert report().provenance.git.dirty
    monkeypatch.setenv("PATH", str(tmp_path))  # no git there
    assert report().provenance.git is None
