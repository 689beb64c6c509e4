"""Networks that a zoo ranks by corruptions are audited and ranked by them."""

import csv
import io
import random

import pytest
from support.batch_runs import log_done, log_listed, report
from support.corrupted import write_arrays

from robaudit.batch.directory import create
from robaudit.batch.driving import drive
from robaudit.batch.leaderboard import leaderboards
from robaudit.batch.leaderboard_table import leaderboard_csv, leaderboard_tables
from robaudit.batch.listing import jobs_of
from robaudit.batch.local import in_process
from robaudit.batch.manifest import read_manifest
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.formats.markdown import markdown_text
from robaudit.schema import Interval, Measurement

ZOO = "robustbench:cifar10/corruptions/"


@pytest.fixture
def zoo(monkeypatch):
    from robaudit.checkpoints.sources import catalogue

    entries = tuple(
        catalogue.Entry("cifar10", threat, name, ("id",), False, None)
        for threat, name in (("Linf", "Standard"), ("corruptions", "Standard"))
    )
    for module in ("robaudit.batch.listing.catalogue", f"{catalogue.__name__}.catalogue"):
        monkeypatch.setattr(module, lambda: entries)


@pytest.fixture
def jobs(zoo, tmp_path):
    def of(text):
        (tmp_path / "batch.toml").write_text(text)
        return jobs_of(read_manifest(tmp_path / "batch.toml"))

    return of


def test_an_entry_is_audited_by_its_own_threat_unless_another_is_stated(jobs):
    table = 'data = "cifar10"\n[[models]]\nrobustbench = "cifar10/*"\n'
    attacked, corrupted = jobs(table)
    assert (attacked.norm, attacked.threat) == ("linf", "linf 8/255")
    assert (corrupted.norm, corrupted.eps, corrupted.threat) == (None, None, "corruptions")
    assert [probe.name for probe in corrupted.plan.probes] == ["corruptions"]
    assert not corrupted.plan.attacks
    assert corrupted.suite != attacked.suite
    assert {job.norm for job in jobs(f'threats = "l2 0.5"\n{table}')} == {"l2"}
    *_, both = jobs(f'also = ["corruptions", "square"]\n{table}')
    assert [probe.name for probe in both.plan.probes] == ["corruptions", "square"]
    (alone,) = jobs('data = "cifar10-c"\n[[models]]\nrobustbench = "cifar10/corr*/*"\n')
    assert alone.plan.on_corrupted


def test_jobs_without_a_norm_are_done_and_ranked(rows, tmp_path):
    folder = write_arrays(tmp_path / "data" / "digits-c")
    own = {"norm": None, "eps": None, "n": 40}
    beside = rows("a.pt", **own, data_dir=folder.parent)
    alone = rows("b.pt", **own, data=f"corruptions:{folder}")
    directory = create(tmp_path / "run")
    assert drive(directory, [*beside, *alone], in_process("cpu"), workers=1).complete
    state = directory.state()
    board, other = leaderboards(state)
    assert board.title == "digits test, 40 examples, corruptions"
    assert board.attack == "Accuracy under corruptions"
    (model,) = board.models
    assert model.places == (1, 1)
    assert model.report.threat is None
    assert model.report.get("accuracy.clean").status == "ok"
    assert "Accuracy under corruptions %" in markdown_text(*leaderboard_tables([board]))
    (model,) = other.models
    assert model.report.get("accuracy.clean").status == "skipped"
    assert model.accuracy == model.report.get("accuracy.corruptions").value


def corrupted(value, n=1000, error=0.01):
    half = 1.96 * error
    interval = Interval(low=value - half, high=value + half, level=0.95, method="clustered")
    return Measurement(
        name="accuracy.corruptions", value=value, unit="fraction", n=n, interval=interval,
        standard_error=error,
    )  # fmt: skip


def finished(directory, source, value, attacks, **listed):
    found = report(source, 0.5, random.Random(0))
    kept = [m for m in found.measurements if attacks or m.name != "accuracy.autoattack"]
    log_listed(directory, source, source, **listed)
    whole = found.model_copy(update={"measurements": [*kept, corrupted(value)]})
    log_done(directory, source, whole)


def test_the_better_one_stands_first(tmp_path):
    directory = create(tmp_path / "run")
    for name, value in (("a.pt", 0.7), ("b.pt", 0.8)):
        finished(directory, name, value, attacks=False, norm=None, eps=None)
    (board,) = leaderboards(directory.state())
    assert [(m.name, m.accuracy, m.places) for m in board.models] == [
        ("b", 0.8, (1, 1)), ("a", 0.7, (2, 2)),
    ]  # fmt: skip


def test_the_published_figure_stands_beside(tmp_path):
    directory = create(tmp_path / "run")
    facts = {"corruptions_acc": 0.75, "clean_acc": 0.95}
    own = {"norm": None, "eps": None, "published": facts}
    finished(directory, f"{ZOO}Standard", 0.74, attacks=False, **own)
    (board,) = leaderboards(directory.state())
    theirs = board.models[0].published
    assert (theirs.accuracy, theirs.n) == (0.75, 10_000)
    assert theirs.difference == pytest.approx(-0.01)
    # Nine tenths of the images that theirs is of are left out.
    assert theirs.noise == pytest.approx(0.01 * (9000 / 9999) ** 0.5)


def test_beside_attacks_it_has_a_column(tmp_path):
    directory = create(tmp_path / "run")
    for name, value in (("a.pt", 0.7), ("b.pt", 0.8)):
        finished(directory, name, value, attacks=True)
    (board,) = leaderboards(directory.state())
    assert board.attack == "AutoAttack"
    assert "accuracy.corruptions" in [row.name for row in board.beside]
    table = markdown_text(*leaderboard_tables([board]))
    assert "Corrupt. acc. %" in table
    assert "80.0 [" in table
    lines = list(csv.DictReader(io.StringIO(csv_text(leaderboard_csv([board])))))
    assert {float(line["accuracy.corruptions"]) for line in lines} == {0.7, 0.8}
