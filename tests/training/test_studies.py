"""The studies run from end to end, as small as can be, and go on where they stopped."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    yield
    for name in ("running", *(path.stem for path in STUDIES.glob("*.py"))):
        sys.modules.pop(name, None)


def study(name, *words):
    module, running = importlib.import_module(name), importlib.import_module("running")
    return running.main(name, module.run, module.report, words)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("digits", ["methods.md", "correlations.md", "scatter.svg"]),
        ("overfitting", ["schedules.md", "epochs.svg"]),
        ("two_moons", ["moons.md", "moons.svg"]),
    ],
)
def test_a_study_runs_to_its_end_and_is_then_done(name, files, tmp_path, capsys):
    assert study(name, "--smoke", "--out", str(tmp_path)) == 0
    for file in files:
        text = (tmp_path / file).read_text("utf-8")
        assert len(text) > 100
        assert "nan" not in text.lower().replace("dominant", "")
    first = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    capsys.readouterr()
    assert study(name, "--smoke", "--out", str(tmp_path), "--minutes", "1") == 0
    assert "done" not in capsys.readouterr().out.replace("seed 0 done", "")
    assert all(path.read_bytes() == data for path, data in first.items())


def test_without_time_nothing_is_begun_and_the_status_says_so(tmp_path, capsys):
    assert study("digits", "--smoke", "--out", str(tmp_path), "--minutes", "-1") == 1
    assert "out of time" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_two_moons_lie_in_the_unit_square_and_apart():
    x, y = importlib.import_module("two_moons").two_moons(400, 0.0, 0)
    assert x.min() >= 0
    assert x.max() <= 1
    points = x.reshape(-1, 2)
    apart = np.linalg.norm(points[y == 0][:, None] - points[y == 1][None], axis=2).min()
    assert apart > 0.05
