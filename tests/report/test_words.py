"""A measurement's name says what was measured: which attack, matrix and weights."""

import pytest

from robaudit.report.words import label
from robaudit.schema import Measurement


def named(name, **settings):
    return label(Measurement(name=name, value=1.0, settings=settings))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("hessian.trace", {}, "Hessian trace"),
        ("hessian.trace", {"operator": "gauss-newton"}, "Gauss-Newton trace"),
        ("hessian.largest", {"operator": "gauss-newton"}, "Largest eigenvalue, Gauss-Newton"),
        ("hessian.largest", {"layers": ["head"]}, "Largest eigenvalue, chosen layers"),
        ("hessian.largest", {"layers": "all"}, "Largest eigenvalue"),
        ("trace.total", {}, "Trace, all layers"),
        ("trace.total", {"layers": ["head"]}, "Trace, chosen layers"),
        ("trace.total", {"layers": "all"}, "Trace, all parameters"),
        ("trh.top_layer", {"objective": "mart"}, "Top-layer Hessian trace, MART"),
        ("accuracy.autoattack", {"engine": "robaudit"}, "Robust accuracy, AutoAttack (native)"),
        (
            "accuracy.autoattack",
            {"engine": "pyautoattack", "version": "rand"},
            "Robust accuracy, AutoAttack (rand)",
        ),
        ("accuracy.fast", {}, "Robust accuracy, fast"),
        ("accuracy.transfer", {}, "Accuracy on transferred images"),
        ("made.up", {}, "made.up"),
    ],
)
def test_names_in_words(name, settings, words):
    assert named(name, **settings) == words
