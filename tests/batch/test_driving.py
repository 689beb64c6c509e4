"""What is done is never done again, what fails is a row, and the numbers are a single audit's."""

import json

import numpy as np
import pytest
import torch
from support.batch_runs import numbers

from robaudit.audit import audit, preset
from robaudit.batch.directory import REPORT, create
from robaudit.batch.driving import drive
from robaudit.batch.listing import rows_of
from robaudit.batch.local import in_process
from robaudit.batch.tasks import TaskEvent
from robaudit.batch.work import session_of
from robaudit.report import read_report
from robaudit.session import Session
from robaudit.types import ThreatModel


@pytest.fixture
def run(tmp_path):
    """Drives the rows in this process; gives the outcome and what event."""
    directory = create(tmp_path / "run")

    def go(rows, executor=None, **said):
        seen = []
        outcome = drive(
            directory, rows, executor or in_process("cpu"), workers=1,
            look=lambda event: event and seen.append((event.kind, event.key)), **said,
        )  # fmt: skip
        return outcome, seen

    go.directory = directory
    return go


def test_a_job_is_a_single_audit(run, rows, job):
    (row,) = rows("a.pt", gap=True)
    outcome, _ = run([row])
    assert outcome.complete
    session = session_of(row.job, "cpu")
    model, examples, train = session.open(row.job.source), session.examples, session.train
    alone = audit(model, examples, ThreatModel("linf", 0.1), preset("quick"), train=train)
    folder = run.directory.folders([row])[row.key] / REPORT
    assert numbers(read_report(folder)) == numbers(alone.report)
    with np.load(folder / "examples.npz") as arrays:
        assert arrays.keys() == alone.outcomes.keys()
        assert all((arrays[name] == alone.outcomes[name].numpy()).all() for name in arrays)
    assert {"report.html", "gallery.npz", "curvature.svg"} <= {
        path.name for path in folder.iterdir()
    }
    left = [path.name for path in run.directory.folders([row])[row.key].iterdir()]
    assert left == [REPORT]


def test_a_run_goes_on_with_the_threads_that_it_began_with(run, rows):
    before = torch.get_num_threads()
    run(rows("a.pt"), threads=before + 1)
    outcome, _ = run(rows("a.pt", "b.pt"), threads=before)
    for row in outcome.state.rows:
        report = read_report(run.directory.folders([row])[row.key] / REPORT)
        assert report.provenance.device == f"cpu ({before + 1} threads)"
    assert torch.get_num_threads() == before


def test_running_again_does_nothing_and_adds_what_is_new(run, rows):
    run(rows("a.pt"))
    outcome, seen = run(rows("a.pt", "b.pt"))
    assert [key for kind, key in seen if kind == "done"] == [rows("b.pt")[0].key]
    assert len(outcome.state.done) == len(outcome.state.rows) == 2
    assert run(rows("a.pt", "b.pt"))[1] == []


def test_a_model_is_one_row_whatever_is_added_beside_it(run, rows, models):
    first, second = (str(models / name) for name in ("a.pt", "b.pt"))
    run(rows("a.pt", peers=(first,)))
    outcome, seen = run(rows("a.pt", "b.pt", peers=(first, second)))
    assert [row.job.source for row in outcome.state.rows] == [first, second]
    assert [kind for kind, _ in seen].count("done") == 1


def test_the_same_weights_are_audited_once_and_listed_twice(run, rows, models):
    (models / "copy.pt").write_bytes((models / "a.pt").read_bytes())
    try:
        outcome, seen = run(rows("a.pt", "copy.pt"))
    finally:
        (models / "copy.pt").unlink()
    assert [kind for kind, _ in seen].count("done") == 1
    assert len(outcome.state.rows) == 2
    assert outcome.complete


@pytest.mark.parametrize(
    "change",
    [{"eps": 0.2}, {"norm": "l2"}, {"n": 11}, {"seed": 1}, {"normalize": "0.5;0.5"},
     {"preset": "standard"}, {"split": "train"}, {"precision": "bf16"},
     {"also": ("fast",)}, {"also": ("square",)}],
)  # fmt: skip
def test_whatever_changes_the_result_changes_the_key(rows, change):
    assert rows("a.pt")[0].key != rows("a.pt", **change)[0].key


def test_where_a_file_lies_does_not(rows, models, tmp_path, job):
    moved = tmp_path / "elsewhere.pt"
    moved.write_bytes((models / "a.pt").read_bytes())
    (there,) = rows_of([job("a.pt").changed(source=str(moved))])
    assert there.key == rows("a.pt")[0].key
    (tmp_path / "elsewhere.pt.toml").write_text('normalization = "none"')
    (stated,) = rows_of([job("a.pt").changed(source=str(moved))])
    assert stated.key != there.key


def test_what_cannot_be_audited_is_a_row_with_its_reason(run, rows, models):
    (models / "broken.pt").write_bytes(b"no checkpoint at all")
    try:
        outcome, _ = run([*rows("broken.pt", "a.pt"), *rows("b.pt", arch="resnet")])
        broken = rows("broken.pt")[0].key
    finally:
        (models / "broken.pt").unlink()
    assert not outcome.complete
    assert len(outcome.state.done) == 1
    assert "broken.pt" in outcome.state.failed[broken]
    assert len(outcome.state.failed) == 2
    assert all(" " in reason for reason in outcome.state.failed.values())


def test_what_failed_is_left_until_it_is_asked_for(run, rows):
    def failing(tasks):
        for task in tasks:
            yield TaskEvent("started", task.key)
            yield TaskEvent("failed", task.key, "no such luck")

    outcome, _ = run(rows("a.pt"), failing)
    assert list(outcome.state.failed.values()) == ["no such luck"]
    outcome, seen = run(rows("a.pt"))
    assert (outcome.held_back, seen, outcome.complete) == (1, [], False)
    outcome, _ = run(rows("a.pt"), retry_failed=True)
    assert (outcome.held_back, outcome.complete, outcome.state.failed) == (0, True, {})


def test_a_file_that_has_changed_takes_its_old_rows_place(run, rows, models):
    (models / "d.pt").write_bytes((models / "a.pt").read_bytes())
    try:
        run(rows("d.pt"))
        (models / "d.pt").write_bytes((models / "b.pt").read_bytes())
        (row,) = rows("d.pt")
        outcome, _ = run([row])
    finally:
        (models / "d.pt").unlink()
    assert [listed.key for listed in outcome.state.rows] == [row.key]


def test_finished_stages_are_not_done_again(run, rows, monkeypatch):
    """As after a kill in the middle of any of them, and between any two."""
    begun = []
    true_audit = Session.audit

    def interrupted(session, model, plan, name, **said):
        begun.append(tuple(probe.name for probe in plan.probes))
        if begun.count(begun[-1]) == 1:
            raise KeyboardInterrupt
        return true_audit(session, model, plan, name, **said)

    monkeypatch.setattr(Session, "audit", interrupted)
    stages = [("pgd", "classes"), ("wci",), ("top_layer",), ("average",), ("worst",)]
    for _ in stages:
        with pytest.raises(KeyboardInterrupt):
            run(rows("a.pt"))
    outcome, _ = run(rows("a.pt"))
    assert outcome.complete
    assert begun == [stage for stage in stages for _ in range(2)]


def test_a_driver_that_was_killed_before_it_wrote_down_a_report(run, rows):
    run(rows("a.pt"))
    lines = run.directory.journal.read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["event"] != "done"]
    run.directory.journal.write_text("".join(kept))
    outcome, seen = run(rows("a.pt"))
    assert (outcome.complete, seen) == (True, [])


def test_what_an_attempt_left_half_written_is_cleared_away(run, rows):
    (row,) = rows("a.pt")
    folder = run.directory.folders([row])[row.key]
    (folder / ".report.xyz").mkdir(parents=True)
    (folder / "state").mkdir()
    (folder / "state" / "journal.json").write_text('{"robaudit": "0.0.0"}')
    outcome, _ = run([row])
    assert outcome.complete
    assert [path.name for path in folder.iterdir()] == [REPORT]
