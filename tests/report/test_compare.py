"""Two audits on the same examples: each number against scipy, each refusal by its words."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.gates import HOSTILE

from robaudit.errors import DataError, UsageError
from robaudit.report import write_report
from robaudit.report.compare import compare
from robaudit.report.compare_outcomes import Audited, read_audited
from robaudit.report.compare_tables import (
    compare_data,
    compare_json,
    compare_markdown,
    compare_tables,
)
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.formats.terminal import terminal_text
from robaudit.report.html.compare_page import compare_html
from robaudit.schema import Measurement

N = 200
INDEX = np.arange(N) * 3
ACCURACY = {"unit": "fraction", "n": N}
LOSS = {"unit": "nats", "n": N}


def audited(report, seed, source, **more) -> Audited:
    """A report whose numbers come from random outcomes."""
    rng = np.random.default_rng(seed)
    clean = rng.random(N) < 0.9
    arrays = {
        "accuracy.clean": clean,
        "accuracy.pgd": clean & (rng.random(N) < 0.4 + 0.1 * seed),
        "loss.clean": rng.exponential(size=N).astype(np.float32),
        "loss.robust": rng.exponential(size=N).astype(np.float32) + 0.3 * seed,
    }
    rows = [
        Measurement(
            name=name,
            value=float(values.mean(dtype=np.float64)),
            **(ACCURACY if name[0] == "a" else LOSS),
        )
        for name, values in arrays.items()
    ]
    rows += [
        Measurement(name="wci", value=60.0 + seed, standard_error=0.3 * (seed + 1), n=N),
        Measurement(name="hessian.largest", value=10.0, n=N),
    ]
    outcomes = {f"test.{name}": values for name, values in arrays.items()}
    outcomes |= {"test.index": INDEX, "test.label": np.zeros(N, dtype=np.int64)}
    subject = report.subject.model_copy(update={"source": source, "sha256": f"{seed:064x}"})
    changed = {"subject": subject, "measurements": rows, "train_data": None, **more}
    return Audited(report.model_copy(update=changed), outcomes)


@pytest.fixture
def pair(report):
    return audited(report, 0, "runs/before.pt"), audited(report, 2, "runs/after.pt")


def row_of(comparison, name):
    (row,) = [row for row in comparison.differences if row.name == name]
    return row


def changed(one: Audited, name: str, /, **update) -> Audited:
    rows = [
        Measurement.model_validate({**m.model_dump(), **update}) if m.name == name else m
        for m in one.report.measurements
    ]
    return Audited(one.report.model_copy(update={"measurements": rows}), one.outcomes)


def test_accuracies_are_paired(pair):
    row = row_of(compare(*pair), "accuracy.pgd")
    a, b = (one.outcomes["test.accuracy.pgd"] for one in pair)
    lost, gained = int((a & ~b).sum()), int((b & ~a).sum())
    assert row.p_value == pytest.approx(stats.binomtest(lost, lost + gained).pvalue)
    assert row.value == pytest.approx(b.mean() - a.mean())
    assert row.interval.low < row.value < row.interval.high
    assert (row.how, row.n, row.interval.method) == ("paired", N, "newcombe-paired")
    assert row.only_first == tuple(INDEX[a & ~b])
    assert row.only_second == tuple(INDEX[b & ~a])


def test_losses_are_paired(pair):
    row = row_of(compare(*pair), "loss.robust")
    a, b = (one.outcomes["test.loss.robust"].astype(np.float64) for one in pair)
    reference = stats.ttest_rel(b, a)
    assert row.value == pytest.approx(np.mean(b - a))
    assert row.value / row.standard_error == pytest.approx(reference.statistic)
    assert row.interval.high - row.value == pytest.approx(1.959964 * row.standard_error, rel=1e-5)
    assert (row.how, row.p_value, row.only_first) == ("paired", None, None)


def test_other_errors_are_added_in_quadrature(pair):
    comparison = compare(*pair)
    row = row_of(comparison, "wci")
    assert (row.how, row.value) == ("not paired", 2.0)
    assert row.standard_error == pytest.approx((0.3**2 + 0.9**2) ** 0.5)
    exact = row_of(comparison, "hessian.largest")
    assert (exact.how, exact.value, exact.standard_error) == ("not paired", 0.0, None)


def test_a_report_against_itself_differs_in_nothing(pair):
    comparison = compare(pair[0], pair[0])
    assert all(row.value == 0 for row in comparison.differences)
    assert row_of(comparison, "accuracy.pgd").p_value == 1
    assert row_of(comparison, "loss.robust").standard_error == 0
    assert "Both reports are of the same file." in comparison.notes


def test_swapped_reports_give_the_opposite(pair):
    there, back = compare(*pair), compare(*reversed(pair))
    for row, other in zip(there.differences, back.differences, strict=True):
        assert row.value == -other.value
        assert (row.p_value, row.only_first) == (other.p_value, other.only_second)
        if row.interval:
            assert row.interval.low == pytest.approx(-other.interval.high)


def test_holm(pair):
    """By hand: the smallest of two p-values is doubled, and the order is kept."""
    rows = [row for row in compare(*pair).differences if row.p_value is not None]
    small, large = sorted(rows, key=lambda row: row.p_value)
    assert small.holm == pytest.approx(min(1, 2 * small.p_value))
    assert large.holm == pytest.approx(max(small.holm, large.p_value))


def test_other_examples_are_refused(pair):
    one, other = pair
    data = other.report.data.model_copy(update={"sha256": "00" * 32, "n": 7})
    moved = Audited(other.report.model_copy(update={"data": data}), other.outcomes)
    with pytest.raises(UsageError, match=r"different examples: cifar10 .*n = 1000.* n = 7"):
        compare(one, moved)


@pytest.mark.parametrize(
    ("name", "update", "words"),
    [
        ("accuracy.pgd", {"settings": {"steps": 50}}, "other settings: steps not given and 50"),
        ("accuracy.pgd", {"n": 100}, "other numbers of examples: 200 and 100"),
        ("wci", {"unit": "nats"}, "other units"),
        (
            "wci",
            {"status": "failed", "value": None, "reason": "no memory"},
            "failed for after: no memory",
        ),
        ("wci", {"name": "wci.bound"}, "not measured for after"),
    ],
)
def test_a_row_that_cannot_be_compared(pair, name, update, words):
    comparison = compare(pair[0], changed(pair[1], name, **update))
    row = row_of(comparison, name)
    assert (row.how, row.value, row.p_value) == ("not comparable", None, None)
    assert words in row.reason
    assert row_of(comparison, "loss.robust").value is not None
    assert words in compare_markdown(comparison)


def test_another_threat_leaves_what_is_clean(pair, report):
    threat = report.threat.model_copy(update={"eps": 0.5})
    other = audited(report, 2, "b.pt", threat=threat)
    comparison = compare(pair[0], other)
    compared = {row.name for row in comparison.differences if row.value is not None}
    assert compared == {"accuracy.clean", "loss.clean"}
    assert "linf 8/255 and linf 0.5" in row_of(comparison, "wci").reason


def test_other_training_examples_leave_what_is_of_the_test_split(report):
    def trained(seed, sha256):
        data = report.data.model_copy(update={"split": "train", "sha256": sha256 * 32})
        one = audited(report, seed, f"{seed}.pt", train_data=data)
        clean = one.outcomes["test.accuracy.clean"]
        row = Measurement(
            name="accuracy.clean", split="train", value=float(clean.mean()), **ACCURACY
        )
        gap = Measurement(name="gap.loss", split="gap", value=0.1, standard_error=0.1, **LOSS)
        rows = [*one.report.measurements, row, gap]
        outcomes = one.outcomes | {"train.index": INDEX, "train.accuracy.clean": clean}
        return Audited(one.report.model_copy(update={"measurements": rows}), outcomes)

    hows = {
        (row.name, row.split): row.how
        for row in compare(trained(0, "aa"), trained(2, "bb")).differences
    }
    assert hows["accuracy.clean", "train"] == hows["gap.loss", "gap"] == "not comparable"
    assert hows["accuracy.clean", "test"] == "paired"
    same = compare(trained(0, "aa"), trained(2, "aa")).differences
    assert {row.split: row.how for row in same if row.name == "accuracy.clean"} == {
        "test": "paired",
        "train": "paired",
    }


def test_without_outcomes_nothing_is_paired(pair):
    comparison = compare(pair[0], Audited(pair[1].report, {}))
    assert not any(row.how == "paired" for row in comparison.differences)
    assert "No examples.npz beside the second report: nothing is paired." in comparison.notes


@pytest.mark.parametrize(
    "array",
    [np.ones(N, dtype=bool), np.ones(N - 1, dtype=bool), np.ones(N), np.ones((N, 2), dtype=bool)],
    ids=["values", "rows", "type", "shape"],
)
def test_outcomes_of_another_report_are_refused(pair, array):
    other = Audited(pair[1].report, {**pair[1].outcomes, "test.accuracy.pgd": array})
    with pytest.raises(DataError, match="does not belong"):
        compare(pair[0], other)


def test_outcomes_of_other_examples_are_refused(pair):
    other = Audited(pair[1].report, {**pair[1].outcomes, "test.index": INDEX + 1})
    with pytest.raises(DataError, match="list other examples"):
        compare(pair[0], other)


def test_reading(pair, tmp_path):
    write_report(pair[0].report, tmp_path)
    assert read_audited(tmp_path).outcomes == {}
    np.savez_compressed(tmp_path / "examples.npz", **pair[0].outcomes)
    for path in (tmp_path, tmp_path / "report.json"):
        again = read_audited(path)
        assert again.report == pair[0].report
        assert set(again.outcomes) == set(pair[0].outcomes)
    for content in (b"", b"PK\x03\x04damaged", (tmp_path / "examples.npz").read_bytes()[:-200]):
        (tmp_path / "examples.npz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_audited(tmp_path)
    np.savez(tmp_path / "examples.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="cannot be read"):
        read_audited(tmp_path)


def test_json_and_csv_hold_every_example_that_changed(pair):
    comparison = compare(*pair)
    pgd = row_of(comparison, "accuracy.pgd")
    found = json.loads(compare_json(comparison))
    assert (found["first"]["name"], found["second"]["name"]) == ("before", "after")
    assert found["second"]["provenance"]["seed"] == 0
    rows = {row["name"]: row for row in found["differences"]}
    assert rows["accuracy.pgd"]["only_second"] == list(pgd.only_second)
    assert rows["wci"]["how"] == "not paired"
    text = csv_text(compare_data(comparison))
    table = {row["name"]: row for row in csv.DictReader(io.StringIO(text))}
    assert set(table) == set(rows)
    assert table["accuracy.pgd"]["only_first"].split() == [str(i) for i in pgd.only_first]
    assert float(table["wci"]["difference"]) == 2.0


def test_the_page_holds_the_table(pair):
    comparison = compare(*pair)
    page = compare_html(comparison)
    assert all(f">{row.label}</th>" in page for row in comparison.differences)
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    for row in comparison.differences:
        named = f">{row.label}{f': {row.result}' if row.result else ''}</text>"
        assert sum(named in one for one in drawn) == (row.interval is not None)
    # One scale each, with numbers.
    axes = ["difference, points", "difference, nats", "difference, % of before's"]
    assert [[axis for axis in axes if f">{axis}</text>" in one] for one in drawn] == [
        [axis] for axis in axes
    ]
    assert '+2.00 <span class="spread">[0.14, 3.86]</span>' in page
    for report in pair:
        assert report.report.subject.sha256 in page


def test_better_and_worse_are_said_where_they_are_known(pair):
    comparison = compare(*pair)
    assert row_of(comparison, "wci").interval.low > 0
    assert row_of(comparison, "wci").result == "worse"
    page = compare_html(comparison)
    assert re.search(r'WCI.*?\+2\.00.*?<td class="k tone-bad">worse</td>', page)
    for row in comparison.differences:
        if row.interval is None or row.interval.low <= 0 <= row.interval.high:
            assert row.result is None, row.name
    doubted = compare(pair[0], changed(pair[1], "wci", doubts=["derivatives are wrong"]))
    assert row_of(doubted, "wci").result is None
    pgd = row_of(comparison, "accuracy.pgd")
    clear = replace(pgd, interval=pgd.interval.model_copy(update={"low": 0.01, "high": 0.2}))
    for value, holm, result in ((0.1, 0.01, "better"), (0.1, 0.2, None), (-0.1, 0.01, "worse")):
        assert replace(clear, value=value, holm=holm).result == result


def test_other_radii_and_steps_are_shown_as_given(pair):
    one = changed(pair[0], "accuracy.pgd", settings={"step_size": 2 / 255})
    other = changed(pair[1], "accuracy.pgd", settings={"step_size": 0.01})
    row = row_of(compare(one, other), "accuracy.pgd")
    assert row.reason == "other settings: step_size 2/255 and 0.01"


@pytest.mark.parametrize("width", [80, 100])
def test_no_number_is_cut(pair, width):
    text = terminal_text(*compare_tables(compare(*pair)), width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    (line,) = [line for line in lines if line.startswith(" Weight-C")]
    assert re.search(r" 60\.00 +62\.00 +\+2\.00 +\[0\.14, 3\.86\]", line)
    assert "…" not in text


def test_foreign_text_stays_text(report, pair):
    hostile = audited(report, 2, HOSTILE)
    subject = hostile.report.subject.model_copy(update={"architecture": HOSTILE})
    hostile = Audited(hostile.report.model_copy(update={"subject": subject}), hostile.outcomes)
    comparison = compare(pair[0], changed(hostile, "wci", settings={HOSTILE: HOSTILE}))
    text = terminal_text(*compare_tables(comparison))
    assert not set("\x1b\x00") & {*text, *compare_markdown(comparison)}
    assert not re.search(r"<\s*script", compare_markdown(comparison))
    page = compare_html(comparison)
    assert "\x1b" not in page
    assert page.count("<script>") == 1  # its own
    assert "&lt;script&gt;" in page
    table = [line for line in compare_markdown(comparison).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {7, 4}


def run_by(one: Audited, torch: str, edges: float | None) -> Audited:
    """Made with that PyTorch; ``edges`` where the network was blind at the edges of the box."""
    versions = {**one.report.provenance.versions, "torch": torch}
    provenance = one.report.provenance.model_copy(update={"versions": versions, "edges": edges})
    return Audited(one.report.model_copy(update={"provenance": provenance}), one.outcomes)


@pytest.mark.parametrize(
    ("torches", "edges", "refused"),
    [
        (("2.13.1", "2.14.0+cu130"), (None, 1e-6), True),
        (("2.14.1", "2.9.0"), (1e-6, 1e-6), True),
        (("2.14.1", "2.15.0"), (1e-6, 1e-6), False),
        (("2.13.1", "2.14.0"), (None, None), False),
    ],
)
def test_attacks_with_other_gradients_at_the_edges_are_not_compared(pair, torches, edges, refused):
    """Where no network clamps its input, PyTorch's change of a clamp's gradient is none."""
    one, other = (run_by(*made) for made in zip(pair, torches, edges, strict=True))
    comparison = compare(one, other)
    row = row_of(comparison, "accuracy.pgd")
    assert (row.how == "not comparable") == refused
    if refused:
        assert torches[0] in row.reason
        assert "exactly 0 or 1" in row.reason
    assert row_of(comparison, "accuracy.clean").how == "paired"
