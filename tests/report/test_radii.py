"""Accuracies over radii, as a table, in markdown and as a figure."""

import pytest

from robaudit.errors import DataError
from robaudit.report import render
from robaudit.report.pictures.accuracies import radii
from robaudit.report.report_tables import radii_table


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
    found = radii_table(curved)
    assert found.columns[0].heading == "eps"
    assert [row[0].text for row in found.rows] == ["0", "2/255", "8/255"]
    assert (found.rows[2][1].text, found.rows[2][1].spread) == ("40.0", "30.0-45.0")
    text = render([curved], "md")
    assert "Accuracy within each radius" in text
    assert "| 8/255 | 40.0 30.0-45.0 |" in text


def test_one_radius_makes_no_curve(report):
    assert radii_table(report) is None
    assert radii(report) is None
    assert "within each radius" not in render([report], "md")


def test_the_figure_shows_the_numbers_of_the_report(curved):
    (axis,) = radii(curved).axes
    (line,) = axis.get_lines()
    assert line.get_xdata() == pytest.approx([0, 2 / 255, 8 / 255])
    assert line.get_ydata() == pytest.approx([84.2, 70, 40])
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "2/255", "8/255"]
    assert axis.get_ylabel().startswith("accuracy, %")


def test_a_damaged_curve_is_refused(change):
    with pytest.raises(DataError, match=r"curve of accuracy\.pgd"):
        radii_table(change("accuracy.pgd", details={"curve": [{"eps": 0.1}]}))
