"""Groups, hyper-parameters and tables of a study of runs whose numbers are known."""

import csv
import io
import json
import random

import numpy as np
import pytest
from scipy import stats
from support.batch_runs import log_done, log_listed, report

from robaudit.batch.directory import create
from robaudit.batch.driving import _list
from robaudit.batch.listing import jobs_of, rows_of
from robaudit.batch.manifest import read_manifest
from robaudit.batch.study import studies
from robaudit.batch.study_models import matched
from robaudit.batch.study_plot import coefficients_figure, scatter_figure
from robaudit.batch.study_tables import study_csv, study_document, study_tables
from robaudit.errors import UsageError
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.formats.terminal import terminal_text
from robaudit.schema import Measurement


@pytest.fixture
def add(tmp_path):
    return adding(tmp_path / "run")


def adding(folder):
    """A function that adds a finished model to a run."""
    directory, chance = create(folder), random.Random(1)

    def one(source, robust, epoch=None, arch="resnet18", clean=None, **said):
        key = source.replace("/", "-")
        log_listed(directory, source, key, **said)
        made = report(source, robust, chance)
        subject = made.subject.model_copy(update={"epoch": epoch, "architecture": arch})
        kept = [m for m in made.measurements if m.name != "accuracy.clean" or clean is None]
        if clean is not None:
            kept.append(Measurement(name="accuracy.clean", value=clean, unit="fraction"))
        made = made.model_copy(update={"subject": subject, "measurements": kept})
        log_done(directory, key, made)

    one.state = directory.state
    return one


def test_sets_differ_in_one_hyperparameter_only():
    base = {"objective": {"kind": "at", "penalty": None}, "awp": None, "seed": 0}
    mart = {**base, "objective": {"kind": "mart", "penalty": 5.0}}
    settings = [base, {**base, "seed": 1}, mart, {**base, "awp": {"gamma": 0.01, "after": 0}}]
    settings.append({**mart, "awp": {"gamma": 0.02, "after": 5}, "seed": 1})
    assert matched(settings).sets == {"objective": [[0, 2]], "awp": [[0, 3]]}


def test_entries_of_a_table_that_all_have_are_hyperparameters_each():
    settings = [
        {"taylor": {"order": order, "eta": eta}, "seed": 0} for order in (1, 2) for eta in (3, 4)
    ]
    found = matched([{}, *settings]).sets  # nothing is known of the first
    assert found == {"taylor.order": [[1, 3], [2, 4]], "taylor.eta": [[1, 2], [3, 4]]}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ([{}, {}, {"a": 1}], "not known"),
        ([{"a": 1}, {"a": 1}], "same hyper-parameters"),
        ([{"a": 1, "b": 1}, {"a": 2, "b": 2}], "no two models differ in one"),
        ([{"seed": 1}, {"seed": 2}], "no two models differ in one"),
    ],
)
def test_why_there_are_no_sets(settings, reason):
    found = matched(settings)
    assert not found.sets
    assert reason in found.reason


def test_epochs_of_one_run_are_one_group_in_the_order_of_epochs(add):
    for run in "ab":
        for epoch, robust in ((10, 0.5), (2, 0.3), (5, 0.4)):
            add(f"{run}/{epoch}.pt", robust + (run == "b") * 0.05, epoch)
    add("zoo/x.pt", 0.6, 1.0)
    add("zoo/y.pt", 0.6, 9.0)  # no epochs in the names: the best of two runs, perhaps
    (study,) = studies(add.state())
    assert (study.models, study.groups) == (8, 4)
    pair = study.pairs[0]
    assert pair.groups[:6] == ("a/*.pt resnet18",) * 3 + ("b/*.pt resnet18",) * 3
    assert pair.groups[6:] == ("zoo/x.pt", "zoo/y.pt")
    assert pair.names[:3] == ("a/2", "a/5", "a/10")
    error = next(pair for pair in study.pairs if pair.outcome == "error")
    assert error.y[:3] == pytest.approx([0.7, 0.6, 0.5])
    assert all(pair.found.spearman.interval is None for pair in study.pairs)
    assert "Only 4 groups of models: no interval" in terminal_text(*study_tables([study]))


def test_epochs_in_names_make_a_run_and_other_numbers_do_not(add):
    for epoch in (1, 2, 10):
        add(f"runs/at_epoch_{epoch:03}.pt", 0.3 + 0.01 * epoch)
        add(f"runs/trades_epoch_{epoch:03}.pt", 0.31 + 0.01 * epoch)
        add(f"seeds/at_{epoch}.pt", 0.32 + 0.01 * epoch, 50.0 + epoch)
    (study,) = studies(add.state())
    assert study.groups == 5
    assert study.pairs[0].names[:3] == ("at_epoch_001", "at_epoch_002", "at_epoch_010")


def test_checkpoints_of_one_run_have_no_p_value(add):
    for epoch in range(8):
        add(f"run/{epoch}.pt", 0.3 + 0.05 * epoch, epoch)
    (study,) = studies(add.state())
    assert all(pair.p_value is None for pair in study.pairs)
    text = terminal_text(*study_tables([study]))
    assert "No p values" in text
    assert "Only 1 group of models" in text


def test_partial_coefficients_and_what_they_are_given(add):
    chance = np.random.default_rng(0)
    for k in range(12):
        add(f"{k}.pt", 0.3 + 0.03 * k, clean=float(chance.uniform(0.8, 0.9)))
    (study,) = studies(add.state())
    reports = {one.subject.source: one for one in map(add.state().report, add.state().done)}
    pair = next(p for p in study.pairs if (p.measure, p.outcome) == ("wci", "loss.robust"))
    ranks = np.array([
        stats.rankdata([reports[f"{name}.pt"].get(m).value for name in pair.names])
        for m in ("wci", "loss.robust", "accuracy.clean")
    ])  # fmt: skip
    inverse = np.linalg.inv(np.corrcoef(ranks))
    expected = -inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1])
    assert pair.found.partial.value == pytest.approx(expected, abs=1e-12)
    assert "Partial: Spearman's with clean accuracy held fixed" in terminal_text(
        *study_tables([study])
    )
    (same,) = studies(add.state(), "parameters")  # of all models the same
    assert all(pair.found.partial is None for pair in same.pairs)
    assert "parameters is not known of all models or does not vary" in " ".join(
        terminal_text(*study_tables([same])).split()
    )
    with pytest.raises(UsageError, match=r"--given acuracy.clean: no such measure"):
        studies(add.state(), "acuracy.clean")


def test_p_values_are_within_architectures_where_that_leaves_a_test(add):
    """One architecture is worse in everything; within each there is no association."""
    chance = np.random.default_rng(0)
    for k in range(12):
        arch = "narrow" if k < 6 else "wide"
        add(f"{arch}-{k}.pt", 0.3 + 0.3 * (k < 6) + float(chance.uniform(0, 1e-3)), arch=arch)
    (study,) = studies(add.state())
    assert study.within
    pair = next(p for p in study.pairs if (p.measure, p.outcome) == ("wci", "error"))
    assert stats.spearmanr(pair.x, pair.y).pvalue < 0.01
    assert pair.p_value > 0.1
    assert "of one architecture exchanged" in terminal_text(*study_tables([study]))


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """Eight groups of three models, with hyper-parameters."""
    add = adding(tmp_path_factory.mktemp("study") / "run")
    for k in range(24):
        method = f"method {k % 8}"
        settings = (("method", method), ("seed", k // 8))
        clean = 0.8 + 0.001 * (k * 7 % 24)
        add(f"m{k:02}.pt", 0.4 + 0.01 * k, clean=clean, group=method, hyperparameters=settings)
    return studies(add.state())


def test_the_table_fits_a_terminal_of_a_hundred_columns(recipes):
    lines = terminal_text(*study_tables(recipes), width=100).splitlines()
    assert max(map(len, lines)) <= 100
    assert sum("Spearman  " in line for line in lines) == 1  # not divided
    (study,) = recipes
    assert list(study.matched.sets) == ["method"]
    text = " ".join(" ".join(lines).split())
    assert "24 models in 8 groups" in text
    assert "Psi: mean of Kendall's within one hyper-parameter: method." in text
    assert "28 of 32 pairs are estimates from the same examples" in text  # all but the weights'


def test_csv_has_every_number(recipes):
    (study,) = recipes
    rows = list(csv.DictReader(io.StringIO(csv_text(study_csv(recipes)))))
    for row, pair in zip(rows, study.pairs, strict=True):
        for name in ("spearman", "partial", "granulated", "pearson", "kendall"):
            one = getattr(pair.found, name)
            assert float(row[name]) == one.value
            assert float(row[f"{name}_low"]) == one.interval.low
            assert float(row[f"{name}_most_without_one"]) == one.without[1]
        assert float(row["p_value_holm"]) == pair.corrected >= pair.p_value
        assert row["influential_model"] == pair.influential != ""
        assert (row["shared_examples"] == "no") == (pair.measure == "weights.frobenius")
    assert len(study_document(recipes)) == 2


def test_shared_noise_is_the_product_of_both_shares(add):
    rng = np.random.default_rng(0)
    for k in range(6):
        add(f"{k}.pt", 0.3 + 0.05 * k)
    state = add.state()
    reports = {}
    for row in state.rows:
        made = state.report(row.key)
        reports[row.key] = made.model_copy(update={"measurements": [
            m.model_copy(update={"standard_error": 0.01 * abs(m.value) * rng.uniform(1, 2)})
            for m in made.measurements
        ]})  # fmt: skip
    state.report = reports.get
    pair = next(
        p for p in studies(state)[0].pairs if (p.measure, p.outcome) == ("wci", "loss.robust")
    )
    shares = [
        np.sqrt(np.mean([reports[k].get(name).standard_error ** 2 for k in reports]))
        / np.std([reports[k].get(name).value for k in reports], ddof=1)
        for name in ("wci", "loss.robust")
    ]
    assert pair.noise == pytest.approx(shares[0] * shares[1])


def test_pictures_show_groups_intervals_and_the_influential_model(recipes):
    (study,) = recipes
    figure = scatter_figure(study, "error")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"method {k}" for k in range(8)]
    pairs = [pair for pair in study.pairs if pair.outcome == "error"]
    for axis, pair in zip(figure.axes, pairs, strict=False):
        assert [text.get_text() for text in axis.texts] == [f"{pair.influential}"]
        colours = {tuple(points.get_facecolor()[0]) for points in axis.collections}
        assert len(colours) == 8
    panel = coefficients_figure(study).axes[0]
    spans = [line.get_xdata() for line in panel.lines if len(line.get_xdata()) == 2]
    for pair in pairs:
        one = pair.found.spearman
        assert any(np.allclose(s, (one.interval.low, one.interval.high)) for s in spans)
        assert any(np.allclose(s, one.without) for s in spans)


def test_the_journal_keeps_what_the_manifest_and_the_run_say(tmp_path):
    run = tmp_path / "at-0"
    (run / "checkpoints").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"recipe": {"objective": "at", "seed": 4}}))
    (run / "checkpoints" / "epoch_002.safetensors").write_bytes(b"x")
    manifest = tmp_path / "m.toml"
    text = '[[models]]\nfiles = "at-0/checkpoints/*.safetensors"\n'
    directory = create(tmp_path / "out")

    def listed(extra=""):
        manifest.write_text(text + extra)
        _list(directory, rows_of(jobs_of(read_manifest(manifest))))
        (row,) = directory.state().rows
        return row

    row = listed()
    assert (row.run, row.recorded["seed"], row.recorded["epoch"]) == (str(run), 4, 2)
    before = row.key
    row = listed('group = "at"\nhyperparameters = { width = 12, wide = true }\n')
    assert row.key == before  # no report depends on it
    assert (row.job.group, dict(row.job.hyperparameters)) == ("at", {"width": 12, "wide": True})
    written = directory.journal.read_text()
    listed('group = "at"\nhyperparameters = { width = 12, wide = true }\n')
    assert directory.journal.read_text() == written
