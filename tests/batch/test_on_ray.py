"""The Ray engine gives the numbers of one process; skipped where Ray is not installed."""

import pytest

ray = pytest.importorskip("ray")

from support.batch_runs import numbers_of  # noqa: E402

from robaudit.batch import on_ray as engine  # noqa: E402
from robaudit.batch.directory import create  # noqa: E402
from robaudit.batch.driving import drive  # noqa: E402
from robaudit.batch.inline import inline  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def ended():
    yield
    ray.shutdown()


@pytest.mark.slow
def test_the_same_numbers_and_deaths_are_rows(rows, models, tmp_path):
    good = rows("a.pt", "b.pt")
    (deadly,) = rows("c.pt", arch=f"{models / 'nets.py'}:deadly")
    alone = create(tmp_path / "alone")
    assert drive(alone, good, inline("cpu"), workers=1).complete
    executor, at_once = engine.on_ray(None, 2, "cpu", None)
    assert at_once == 2
    directory = create(tmp_path / "run")
    outcome = drive(directory, [deadly, *good], executor, workers=2)
    assert numbers_of(directory, good) == numbers_of(alone, good)
    assert "its Ray worker died" in outcome.state.failed[deadly.key]


def test_a_node_without_the_runs_folder_sends_the_report_back(rows, tmp_path):
    """As on a cluster whose nodes share no folder; called here as Ray calls it there."""
    (row,) = rows("a.pt")
    found = engine._task(row.job, str(tmp_path / "jobs" / "a"), b"", "cpu", 1, [])
    assert found.reason == ""
    assert {"report.json", "examples.npz"} <= found.files.keys()
    assert not list(tmp_path.iterdir())
