"""The line on top of a report: the most important number, and whether anything casts doubt."""

from __future__ import annotations

import pytest
from support.pages import furnished

from robaudit.report.headline import headline
from robaudit.report.html import to_html
from robaudit.schema import Measurement


def alone(report, *names):
    """The report with these measurements only, in the audited split."""
    kept = [m for m in report.measurements if m.name in names and m.split == "test"]
    return report.model_copy(update={"measurements": kept})


def certified(report, value=0.455, left=0.018):
    counts = {"unbroken": 473, "open": round(1000 * left)}
    row = Measurement(name="accuracy.certified", value=value, n=1000, details=counts)
    return report.model_copy(update={"measurements": [*report.measurements, row]})


def test_both_ends_where_it_is_certified(report):
    audited = alone(report, "accuracy.clean", "accuracy.autoattack")
    assert headline(certified(audited)) == (
        "Robust accuracy between 45.5 % (certified) and 47.3 % (AutoAttack) at linf 8/255 on "
        "1,000 images; nothing casts doubt."
    )
    assert headline(certified(audited, 0.473, 0.0)).startswith("Robust accuracy exactly 47.3 % at")


def test_an_attack_gives_an_upper_bound_and_says_what_was_not_run(report):
    assert headline(alone(report, "accuracy.clean", "accuracy.autoattack")) == (
        "Robust accuracy at most 47.3 % [44.2, 50.4] (AutoAttack) at linf 8/255 on 1,000 images; "
        "nothing casts doubt."
    )
    assert headline(alone(report, "accuracy.clean", "accuracy.pgd")).endswith(
        "; nothing casts doubt, AutoAttack was not run."
    )


def test_doubts_guesses_findings_and_gaps_are_counted(report, change):
    assert headline(report).endswith("; nothing casts doubt, 1 finding, 1 not measured.")
    doubted = change("accuracy.autoattack", doubts=["gradients are masked", "another"])
    assert "47.3? %" in headline(doubted)
    subject = report.subject.model_copy(update={"architecture_known": "assumed"})
    assumed = doubted.model_copy(update={"subject": subject})
    said = "; 2 doubts, 1 assumption, 1 finding, 1 not measured."
    assert headline(assumed).endswith(said)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("accuracy.clean",), "Clean accuracy 84.2 % [81.8, 86.4] on 1,000 images; nothing"),
        (("wci",), ""),
    ],
)
def test_without_attacks(report, names, line):
    found = headline(alone(report, *names))
    assert found.startswith(line)
    assert bool(found) == bool(line)


def test_the_page_begins_with_it_and_robust_accuracy_stands_first(report, tmp_path):
    html = to_html(certified(furnished(report, tmp_path)), tmp_path)
    places = [
        html.index(text)
        for text in (
            "Robust accuracy between 45.5 % (certified)",
            ">45.5-47.3 <small>%</small>",
            'title="share of examples with argmax f(x) = y">Clean accuracy</abbr>',
            'title="sum_k sqrt(‖W_k‖²_F Tr(H_k))">WCI</abbr>',
            "Not measured",
            "What to make of it",
        )
    ]
    assert places == sorted(places)


def test_what_is_assumed_and_long_names_of_networks(report):
    update = {"architecture": "x" * 200, "normalization_known": "assumed"}
    subject = report.subject.model_copy(update=update)
    html = to_html(report.model_copy(update={"subject": subject}))
    assert "Normalisation: cifar10; assumed, by --guess" in html
    assert f'<abbr title="{"x" * 200}">{"x" * 47}…</abbr>' in html
