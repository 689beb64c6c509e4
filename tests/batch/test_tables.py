"""Leaderboard and study of runs whose numbers are known."""

import csv
import io
import random
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console
from support.batch_runs import finished, log_done, log_listed, report

from robaudit.batch import log
from robaudit.batch.directory import create
from robaudit.batch.leaderboard import leaderboards
from robaudit.batch.leaderboard_table import leaderboard_csv, leaderboard_html, leaderboard_tables
from robaudit.batch.study import studies
from robaudit.batch.study_plot import write_study_plots
from robaudit.batch.study_tables import study_csv, study_tables
from robaudit.errors import UsageError
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.formats.markdown import markdown_text
from robaudit.report.formats.terminal import terminal_view

BAD = "<script>alert(1)</script>\x1b[31m=cmd()|x"


@pytest.fixture
def add(tmp_path):
    """Adds a finished model to a run; gives its folder."""
    directory = create(tmp_path / "run")

    def one(source, robust, key=None, published=None, **said):
        key = key or source
        log_listed(directory, source, key, published)
        log_done(directory, key, report(source, robust, random.Random(1), **said))

    one.directory = directory
    return one


def shown(tables):
    console = Console(file=io.StringIO(), width=200)
    console.print(terminal_view(*tables))
    return console.file.getvalue()


def test_places_are_those_that_intervals_leave_open(add):
    # Half-widths at n = 1000 are about 0.03.
    for name, robust in (("a", 0.60), ("b", 0.58), ("c", 0.535), ("d", 0.51), ("e", 0.30)):
        add(f"{name}.pt", robust)
    (table,) = leaderboards(add.directory.state())
    assert [(entry.name, entry.place) for entry in table.models] == [
        ("a", "1-2"), ("b", "1-3"), ("c", "2-4"), ("d", "3-4"), ("e", "5"),
    ]  # fmt: skip


def test_failed_and_unfinished_models_stand_last_with_their_reason(add):
    add("a.pt", 0.5)
    log_listed(add.directory, "b.pt", "b")
    log_listed(add.directory, "c.pt", "c")
    log.append(add.directory.journal, "failed", key="c", reason="no luck", seconds=0.0)
    (table,) = leaderboards(add.directory.state())
    assert [(entry.name, entry.place, entry.remarks) for entry in table.models] == [
        ("a", "1", []), ("b", "", ["not finished"]), ("c", "", ["failed: no luck"]),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "ours", "n", "difference", "noise"),
    [
        ({"robust_acc": 0.60, "eps": "8/255"}, 0.57, 1000, -0.03, 0.0147),
        ({"robust_acc": 0.60, "eps": "8/255"}, 0.60, 10_000, 0.0, 0.0),
        ({"robust_acc": 0.60, "eps": "4/255"}, 0.57, 1000, None, None),  # another threat model
        ({}, 0.57, 1000, None, None),
    ],
)
def test_the_published_figure_and_the_noise_of_fewer_images(add, facts, ours, n, difference, noise):
    add("robustbench:cifar10/Linf/Standard", ours, published=facts, n=n)
    ((entry,),) = [table.models for table in leaderboards(add.directory.state())]
    if difference is None:
        assert entry.published is None
    else:
        assert entry.published.difference == pytest.approx(difference)
        # A sample without replacement: sqrt(p (1 - p) / n (N - n) / (N - 1)).
        assert entry.published.noise == pytest.approx(noise, abs=1e-4)
        text = shown(leaderboard_tables(leaderboards(add.directory.state())))
        line = next(line for line in text.splitlines() if "Standard" in line)
        assert ("!" in line) == (abs(difference) > 2 * noise > 0)


def test_ours_stands_beside_autoattacks_figure_and_not_beside_a_stronger_attacks(add):
    facts = {"robust_acc": 0.642, "autoattack_acc": 0.7128, "unreliable": True, "eps": "8/255"}
    add("robustbench:cifar10/Linf/Kang2021Stable", 0.71, "kang", facts)
    facts = {"robust_acc": 0.0, "eps": "8/255"}
    add("robustbench:cifar10/Linf/Standard", 0.0, "standard", facts)
    found = leaderboards(add.directory.state())
    kang, standard = (entry.published for entry in found[0].models)
    assert kang.difference == pytest.approx(0.71 - 0.7128)
    assert (kang.external, kang.unreliable) == (0.642, True)
    assert (standard.external, standard.unreliable) == (None, False)
    for text in (shown(leaderboard_tables(found)), markdown_text(*leaderboard_tables(found))):
        assert "64.20 unreliable" in text
        assert "stronger attack" in " ".join(text.split())
    row, other = csv.DictReader(io.StringIO(csv_text(leaderboard_csv(found))))
    assert (row["published"], row["external"], row["unreliable"]) == ("0.7128", "0.642", "True")
    assert (other["external"], other["unreliable"]) == ("", "False")


def test_a_column_that_nobody_fills_is_not_there(add):
    add("robustbench:cifar10/Linf/Standard", 0.0, published={"robust_acc": 0.0, "eps": "8/255"})
    text = markdown_text(*leaderboard_tables(leaderboards(add.directory.state())))
    assert "Published" in text
    assert "External" not in text


def test_a_model_listed_twice_is_shown_twice_and_counted_once(add):
    for name, robust in (("a", 0.6), ("b", 0.5), ("c", 0.4)):
        add(f"{name}.pt", robust)
    log_listed(add.directory, "copies/a.pt", "a.pt")
    state = add.directory.state()
    assert len(leaderboards(state)[0].models) == 4
    assert studies(state)[0].models == 3


def test_every_format_has_every_model_and_none_lets_text_through(add):
    add(f"runs/{BAD}.pt", 0.5, warnings=[BAD])
    add("good.pt", 0.6)
    found = leaderboards(add.directory.state())
    assert "1 below" in shown(leaderboard_tables(found))
    assert "\x1b" not in shown(leaderboard_tables(found))
    rows = list(csv.DictReader(io.StringIO(csv_text(leaderboard_csv(found)))))
    assert [float(row["robust"]) for row in rows] == [0.6, 0.5]
    assert [row["place_best"] for row in rows] == ["1", "2"]
    assert all(
        "\x1b" not in cell and not cell.startswith("=") for row in rows for cell in row.values()
    )
    text = markdown_text(*leaderboard_tables(found))
    assert "<script" not in text
    assert r"\|x" in text
    page = leaderboard_html(found)
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(page)
    assert tags.count("script") == 1
    assert tags.count("table") == 1
    assert "&lt;script&gt;" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_nothing_finished_is_said(tmp_path):
    directory = create(tmp_path / "run")
    log_listed(directory, "a.pt", "a")
    with pytest.raises(UsageError, match="no model of this run is finished"):
        leaderboards(directory.state())


def test_a_study_finds_what_was_put_in(tmp_path):
    (study,) = studies(finished(tmp_path / "run", 40).state())
    assert (study.models, study.architectures) == (40, 1)
    assert len(study.pairs) == 8 * 4  # all but the relative eigenvalue
    for pair in study.pairs:
        sign = -1 if pair.measure == "weights.frobenius" else 1
        if pair.outcome == "error" and pair.measure != "weights.frobenius":
            assert pair.found.spearman.value > 0.8
            assert sign * pair.found.pearson.interval.low > 0
    errors = {pair.names: pair.y for pair in study.pairs if pair.outcome == "error"}
    assert max(next(iter(errors.values()))) == pytest.approx(0.8)  # one less robust accuracy


@pytest.mark.slow
def test_a_study_as_text_csv_and_pictures(tmp_path):
    found = studies(finished(tmp_path / "run", 6).state())
    assert "6 models" in shown(study_tables(found))
    rows = list(csv.DictReader(io.StringIO(csv_text(study_csv(found)))))
    assert len(rows) == len(found[0].pairs)
    first = found[0].pairs[0]
    assert float(rows[0]["kendall"]) == first.found.kendall.value
    assert float(rows[0]["pearson_low"]) == first.found.pearson.interval.low
    assert markdown_text(*study_tables(found)).count("\n| ") == len(rows) + 2
    paths = write_study_plots(found, tmp_path)
    assert [path.name for path in paths] == [
        f"study{of}.{kind}"
        for of in ("", "-error", "-loss-robust", "-gap-error", "-gap-loss")
        for kind in ("svg", "png")
    ]
    drawn = paths[0].read_text()
    assert all(pair.labels[0] in drawn for pair in found[0].pairs)


def test_two_models_are_no_study(tmp_path):
    with pytest.raises(UsageError, match="three finished models"):
        studies(finished(tmp_path / "run", 2).state())


def test_a_measure_that_does_not_vary_has_no_coefficient(add):
    for name in "abc":
        add(f"{name}.pt", 0.5)
    (study,) = studies(add.directory.state())
    assert "-" in shown(study_tables([study]))
    assert all(pair.found is None for pair in study.pairs)


def test_a_page_links_to_reports_and_draws_intervals(add, tmp_path):
    for name, robust in (("a", 0.6), ("b", 0.5)):
        add(f"{name}.pt", robust)
    for folder in add.directory.state().folders.values():
        (folder / "report" / "report.html").write_text("")
    page = leaderboard_html(leaderboards(add.directory.state()), tmp_path / "pages")
    links = re.findall(r'<a href="(\./[^"]*)">([ab])</a>', page)
    assert [name for _, name in links] == ["a", "b"]
    assert all((tmp_path / "pages" / path).resolve().is_file() for path, _ in links)
    # 0.6 +- 1.96 sqrt(0.6 * 0.4 / 1000), on a scale of 100.
    assert '<path d="M57.0 5H63.0"/><circle cx="60.0"' in page
    assert "second, third or fourth" in page


def test_curvature_and_flatness_stand_beside_the_accuracies(add):
    add("a.pt", 0.6)
    found = leaderboards(add.directory.state())
    text = markdown_text(*leaderboard_tables(found))
    for heading in ("WCI", "Flatn. average", "Flatn. worst"):
        assert f"| {heading} |" in text
    (row,) = csv.DictReader(io.StringIO(csv_text(leaderboard_csv(found))))
    assert 400 * 0.4 * 0.8 <= float(row["wci"]) <= 400 * 0.4 * 1.2


def test_a_doubted_accuracy_is_marked_and_its_doubt_stands_in_the_remarks(add):
    add("a.pt", 0.60, doubts=["gradients lead nowhere"])
    add("b.pt", 0.30)
    found = leaderboards(add.directory.state())
    for text in (
        shown(leaderboard_tables(found)),
        markdown_text(*leaderboard_tables(found)),
        leaderboard_html(found),
    ):
        assert "60.0?" in text
        assert "30.0?" not in text
        assert "gradients lead nowhere" in text
    rows = list(csv.DictReader(io.StringIO(csv_text(leaderboard_csv(found)))))
    assert [row["doubts"] for row in rows] == ["gradients lead nowhere", ""]
