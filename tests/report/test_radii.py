"""Accuracies over radii, as a table, in markdown and as a picture."""

from xml.etree import ElementTree

import pytest

from robaudit.errors import DataError
from robaudit.report import render
from robaudit.report.radii import curve_cells, write_radii


def rows(*points):
    return [
        {"eps": eps, "value": value, "low": value - 0.1, "high": value + 0.05}
        for eps, value in points
    ]


@pytest.fixture
def curved(report, change):
    details = {"curve": rows((2 / 255, 0.7), (8 / 255, 0.4))}
    return change("accuracy.pgd", details={**report.get("accuracy.pgd").details, **details})


def test_a_line_for_each_radius_with_its_interval(curved):
    headings, lines = curve_cells(curved)
    assert headings[0] == "eps"
    assert [line[0] for line in lines] == ["0", "2/255", "8/255"]
    assert lines[2][1:] == ["40.0", "30.0-45.0"]
    text = render([curved], "md")
    assert "Accuracy within each radius" in text
    assert "| 8/255 | 40.0 30.0-45.0 |" in text


def test_one_radius_makes_no_curve(report, tmp_path):
    assert curve_cells(report) == ([], [])
    assert write_radii(report, tmp_path) == []
    assert "within each radius" not in render([report], "md")


def test_the_picture_says_what_is_on_its_axes(curved, tmp_path):
    svg, png = write_radii(curved, tmp_path)
    ElementTree.parse(svg)
    assert png.stat().st_size > 1000


def test_a_damaged_curve_is_refused(change):
    with pytest.raises(DataError, match=r"curve of accuracy\.pgd"):
        curve_cells(change("accuracy.pgd", details={"curve": [{"eps": 0.1}]}))
