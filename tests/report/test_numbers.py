"""Digits follow the error bar."""

from __future__ import annotations

import pytest

from robaudit.report.numbers import number, percent, shown, shown_number
from robaudit.schema import Interval, Measurement
from robaudit.types import radius


def measured(value, low=None, high=None, error=None, unit="", split="test"):
    interval = None
    if low is not None:
        interval = Interval(low=low, high=high, level=0.95, method="normal")
    return Measurement(
        name="m", value=value, unit=unit, interval=interval, standard_error=error, split=split
    )


@pytest.mark.parametrize(
    ("measurement", "text"),
    [
        (measured(0.534, 0.5026, 0.5653, unit="fraction"), "53.4 % [50.3, 56.5]"),
        (measured(0.53412, 0.5321, 0.5361, unit="fraction"), "53.41 % [53.21, 53.61]"),
        (measured(0.179, 0.1371, 0.2212, unit="fraction", split="gap"), "17.9 points [13.7, 22.1]"),
        (measured(-0.0001, unit="fraction"), "0.0 %"),
        (measured(0.83, error=0.0519), "0.830 ± 0.052"),
        (measured(0.83, 0.7281, 0.9319, error=0.052), "0.830 [0.728, 0.932]"),
        (measured(0.83, 0.63, 1.03), "0.83 [0.63, 1.03]"),
        (measured(1990.31), "1990"),
        (measured(1990.31, error=1e-9), "1990.31 ± 1e-09"),
        (measured(0.0), "0.000"),
        (measured(1.0, error=0.0), "1.000 ± 0.000"),
        (measured(0.003, error=5.2), "0.0 ± 5.2"),
        (measured(-3.21e-7, error=2.2e-8), "-3.21e-7 ± 0.22e-7"),
        (measured(1.234e7, 1.2e7, 1.3e7), "1.234e7 [1.200e7, 1.300e7]"),
        (measured(12345.0, error=1234.0), "12345 ± 1234"),
    ],
)
def test_shown(measurement, text):
    assert str(shown(measurement)) == text


def test_standard_error_on_demand_but_not_for_fractions():
    assert str(shown(measured(0.83, 0.7281, 0.9319, error=0.052), True)) == "0.830 ± 0.052"
    both = measured(0.5, 0.4, 0.6, error=0.05, unit="fraction")
    assert str(shown(both, True)) == "50.0 % [40.0, 60.0]"


def test_plain_numbers():
    assert [number(x) for x in (0.0, -0.5, 12.3456, 1e30)] == [
        "0.000",
        "-0.5000",
        "12.35",
        "1.000e30",
    ]
    assert percent(1) == "100.0 %"
    assert shown_number(0.0, 0.0) == ("0.000", "0.000")


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (1 / 255, "1/255"), (0.3, "0.3"), (3.0, "3"), (128 / 255, "128/255")],
)
def test_radius(eps, text):
    assert radius(eps) == text
