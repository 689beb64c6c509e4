"""Which numbers a doubt is about."""

import pytest

from robaudit.audit.doubts import Doubt, Findings, doubted
from robaudit.schema import Measurement

ATTACKED = [
    *("accuracy.pgd", "accuracy.cw", "accuracy.fast", "accuracy.autoattack", "accuracy.square"),
    *("loss.robust", "gap.error", "gap.loss", "distance.median"),
    *("flatness.average", "flatness.worst"),
]
CURVED = [
    *("wci", "wci.bound", "trace.total", "hessian.largest", "hessian.trace"),
    *("trh.top_layer", "pacbayes.bound"),
]
NEITHER = ["accuracy.clean", "loss.clean", "weights.frobenius", "flatness.clean_average"]


@pytest.mark.parametrize(("about", "names"), [("attacks", ATTACKED), ("curvature", CURVED)])
def test_a_doubt_stands_on_the_numbers_that_it_is_about_and_on_no_other(about, names):
    measurements = [Measurement(name=name, value=0.5) for name in ATTACKED + CURVED + NEITHER]
    found = doubted(measurements, Findings(doubts=[Doubt(about, "a reason")]))
    assert {m.name for m in found if m.doubts == ["a reason"]} == set(names)
    assert all(m.doubts == [] for m in found if m.name not in names)


def test_what_was_not_measured_is_not_doubted_and_a_doubt_about_nothing_is_a_warning():
    failed = Measurement(name="accuracy.pgd", status="failed", reason="it raised")
    findings = Findings(["a warning"], [Doubt("attacks", "masked"), Doubt("attacks", "masked")])
    assert doubted([failed], findings) == [failed]
    assert findings.unplaced([]) == ["a warning", "masked"]
    assert findings.unplaced(["accuracy.pgd"]) == ["a warning"]


def test_a_measurements_own_doubts_stay_and_none_is_said_twice():
    own = Measurement(name="accuracy.fast", value=0.5, doubts=["its own", "both"])
    findings = Findings(doubts=[Doubt("attacks", "both")])
    assert doubted([own], findings)[0].doubts == ["both", "its own"]
