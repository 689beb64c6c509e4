"""Each line says what was measured, and no more."""

from __future__ import annotations

import pytest

from robaudit.report import verdicts
from robaudit.schema import Interval, Measurement


def line(report, words):
    found = [text for text in verdicts(report) if words in text]
    assert len(found) == 1, found
    return found[0]


def test_headline_is_the_smallest_accuracy_and_an_upper_bound(report):
    text = line(report, "Robust accuracy")
    assert "47.3 % [44.2, 50.4] on 1000 examples under AutoAttack" in text
    assert "the smallest measured: an upper bound" in text
    assert "overstate it by 6.1 points" in line(report, "PGD-20 x10 alone")


def test_without_autoattack_it_says_so(change):
    report = change("accuracy.autoattack", drop=True)
    text = line(report, "Robust accuracy")
    assert text.endswith("under PGD-20 x10: an upper bound; AutoAttack was not run.")


def test_failed_autoattack_is_no_silence(change):
    report = change(
        "accuracy.autoattack", status="failed", value=None, interval=None, reason="out of memory"
    )
    assert "AutoAttack failed" in line(report, "Robust accuracy")


def test_a_weaker_ensemble_does_not_win(change):
    report = change("accuracy.pgd", value=0.4)
    assert "under PGD-20 x10, the smallest measured" in line(report, "Robust accuracy")


def certified(report, value=0.455, drop=(), **details):
    counts = {"unbroken": 473, "open": 473 - round(1000 * value), **details}
    row = Measurement(name="accuracy.certified", value=value, n=1000, details=counts)
    kept = [m for m in report.measurements if m.name not in drop]
    return report.model_copy(update={"measurements": [*kept, row]})


def test_both_ends_are_one_statement(report):
    wanted = (
        "Robust accuracy lies between 45.5 % (certified) and 47.3 % (AutoAttack) of these 1000 "
        "images; 1.8 % open."
    )
    assert line(certified(report), "of these 1000 images") == wanted


def test_the_upper_end_is_what_no_attack_broke(report):
    text = line(certified(report, unbroken=470, open=15), "of these 1000 images")
    assert "and 47.0 % (all attacks together) of these 1000 images; 1.5 % open." in text
    alone = certified(report, drop=("accuracy.pgd", "accuracy.autoattack"), searched_by="PGD-10")
    assert "and 47.3 % (PGD-10) of" in line(alone, "of these 1000 images")


def test_where_nothing_is_open_it_is_exact(report):
    text = line(certified(report, 0.473), "of these 1000 images")
    assert text.startswith("Robust accuracy is exactly 47.3 % of these 1000 images:")


def test_doubts_about_attacks_move_neither_end(change):
    doubtful = change("accuracy.autoattack", doubts=["gradients are masked"])
    text = line(certified(doubtful), "of these 1000 images")
    assert "between 45.5 % (certified) and 47.3 % (AutoAttack)" in text
    assert text.endswith(
        "Doubts about the attacks move neither end: what they broke is broken, and what is "
        "certified is robust."
    )


@pytest.mark.parametrize("wrong", [{"unbroken": None}, {"open": "many"}])
def test_details_that_are_no_numbers_give_no_statement(report, wrong):
    said = verdicts(certified(report, **wrong))
    assert not [text for text in said if "of these 1000 images" in text]


@pytest.mark.parametrize(("high", "broken"), [(0.02, True), (0.0999, True), (0.1001, False)])
def test_broken_means_below_guessing(change, high, broken):
    update = Interval(low=0.0, high=high, level=0.95, method="clopper-pearson")
    report = change("accuracy.autoattack", value=0.004, interval=update)
    found = [text for text in verdicts(report) if "broken at this radius" in text]
    assert bool(found) == broken
    if found:
        assert f"at most {100 * high:.1f} % of examples resist" in found[0]
        assert "10.0 % that guessing among 10 classes" in found[0]


def test_broken_without_known_classes(change):
    report = change("accuracy.autoattack", value=0.0, interval=None)
    report = report.model_copy(update={"data": report.data.model_copy(update={"classes": None})})
    assert "no example that was tried resists" in line(report, "broken")


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (0.83, 0.05, "0.830 ± 0.050, more than sampling explains"),
        (0.02, 0.05, "which sampling explains"),
        (-0.02, 0.05, "which sampling explains"),
        (-0.83, 0.05, "no robust generalisation gap."),
        (0.83, None, "without an error bar"),
        # Where there is a standard error alone, 1.95996 of them are 95 %.
        (0.0979, 0.05, "which sampling explains"),
        (0.0981, 0.05, "more than sampling explains"),
        (-0.0979, 0.05, "which sampling explains"),
        (-0.0981, 0.05, "no robust generalisation gap."),
    ],
)
def test_gap(change, value, error, words):
    report = change("gap.loss", "gap", value=value, standard_error=error, interval=None)
    assert words in line(report, "robust loss exceeds")


def test_wci_names_the_largest_layer(report):
    text = line(report, "WCI 67.30 ± 0.41")
    assert "layer1.0.conv1, 26.6 %" in text
    assert "Tr(H_k)" in text


def test_gauss_newton_traces_are_named(change, report):
    details = dict(report.get("wci").details, quantity="gauss-newton", uncovered=["pos_embed"])
    changed = change("wci", details=details)
    assert "Tr(G_k)" in line(changed, "WCI 67.30")
    assert "not of the Hessian" in line(changed, "Gauss-Newton")
    assert "pos_embed" in line(changed, "leaves out")


def test_flatness_says_how_far(report, change):
    text = line(report, "Random weight changes")
    assert "within 50 % of each tensor's norm raise the robust loss by 0.412 ± 0.021" in text
    changed = change("flatness.worst", status="ok", value=0.7, reason=None, details={"xi": 0.00075})
    assert "within 0.075 %" in line(changed, "worst weight change found")
    assert "a worse one may exist" in line(changed, "worst weight change found")
    fallen = change("flatness.average", value=-0.1, standard_error=0.2)
    assert "lower the robust loss by 0.10 ± 0.20" in line(fallen, "Random")


def test_eigenvalues_are_not_compared_raw(report, change):
    assert "relative one, 71.32, is invariant" in line(report, "sharpest direction")
    changed = change("hessian.relative_largest", drop=True)
    assert "was not measured" in line(changed, "sharpest direction")


def test_an_empty_report_says_nothing(report):
    assert verdicts(report.model_copy(update={"measurements": []})) == []
