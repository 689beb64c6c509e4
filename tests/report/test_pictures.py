"""Figures: their numbers are the report's; as files and in pages they are safe and repeatable."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from support.pages import HOSTILE

from robaudit.report.details import layer_rows
from robaudit.report.html import to_html
from robaudit.report.pictures.accuracies import accuracies, accuracy_row, standing
from robaudit.report.pictures.curvature import curvature
from robaudit.report.pictures.curves import ACCURACY, WCI, course
from robaudit.report.pictures.drawing import inline, new_figure, save, style
from robaudit.report.pictures.flatness import flatness, sweep
from robaudit.report.pictures.intervals import LONGEST_NAME, MOST_ROWS, Whisker, intervals
from robaudit.report.pictures.palette import BLUE, INK, LIGHT, LINES
from robaudit.report.pictures.reliability import reliability
from robaudit.report.text import plain
from robaudit.report.wci_curve import wci_curve
from robaudit.schema import Interval, Measurement

SVG = "{http://www.w3.org/2000/svg}"


def heights(collections):
    """The ends of the horizontal lines that ``hlines`` draws, by their place."""
    return {y: (x, other) for (x, y), (other, _) in collections.get_segments()}


def test_accuracies_are_drawn_with_the_intervals_of_the_report(report):
    (axis,) = accuracies(report).axes
    assert [text.get_text() for text in axis.texts][:2] == [
        "Clean accuracy: 84.2 % [81.8, 86.4]",
        "Robust accuracy, PGD-20 x10: 53.4 % [50.2, 56.5]",
    ]
    values = [line.get_xdata()[0] for line in axis.get_lines() if line.get_markersize() == 4]
    assert values == pytest.approx([84.2, 53.4, 71.3, 47.3])
    bars = heights(axis.collections[1])
    assert bars[1] == pytest.approx((50.25, 56.53))
    assert axis.get_xlim() == (0, 100)


def test_marks_at_the_ends_of_an_axis_are_whole_and_leave_the_left_edge_alone():
    rows = [Whisker("all", 100, 92, 100), Whisker("none", 0, 0, 8), Whisker("one", 0, 0, 0, [0.0])]
    figure = intervals(rows, "accuracy, %", (0, 100))
    (axis,) = figure.axes
    marks = [line for line in axis.get_lines() if line.get_marker() in ("o", "|")]
    assert len(marks) == 6
    assert not any(line.get_clip_on() for line in marks)
    figure.draw_without_rendering()
    assert axis.get_position().x0 < 0.05


def test_a_curve_keeps_its_markers_whole_at_zero(rename, report):
    runs = [rename(report, f"epoch_{epoch}.pt", scale) for epoch, scale in ((1, 1), (2, 0))]
    for axis in course(wci_curve(runs), (ACCURACY, *WCI)).axes:
        lines = [line for line in axis.get_lines() if line.get_marker() not in ("None", "")]
        assert lines
        assert not any(line.get_clip_on() for line in lines)


def test_a_long_name_is_cut_and_not_its_numbers(change):
    clean = change("accuracy.clean").get("accuracy.clean")
    row = accuracy_row(clean, "a very long name " * 9, " (train)")
    assert row.name.endswith("… (train): 84.2 % [81.8, 86.4]")
    assert len(row.name) <= LONGEST_NAME
    whole = accuracy_row(clean, "Robust accuracy of the worst class", " (train)")
    assert whole.name == "Robust accuracy of the worst class (train): 84.2 %"


def test_parts_of_an_attack_are_drawn_in_their_order(report):
    (axis,) = standing(report.get("accuracy.autoattack")).axes
    assert [text.get_text() for text in axis.texts] == ["apgd-ce: 50.1 %", "apgd-t: 47.3 %"]
    values = [line.get_xdata()[0] for line in axis.get_lines() if line.get_markersize() == 4]
    assert values == pytest.approx([50.1, 47.3])


def test_bars_are_the_contributions_of_the_layers(report):
    (axis,) = curvature(report, spectrum=False).axes
    rows = layer_rows(report)
    assert [bar.get_width() for bar in axis.patches] == [row.contribution for row in rows]
    assert [text.get_text() for text in axis.get_yticklabels()] == [row.name for row in rows]
    assert axis.yaxis_inverted()  # the first layer is on top
    # d sqrt(t) / sqrt(t) = dt / (2 t): a contribution's error is half its trace's, relatively.
    low, high = axis.collections[0].get_segments()[0][:, 0]
    assert (high - low) / 2 == pytest.approx(0.015 * rows[0].contribution)


def test_the_largest_layers_are_kept_in_the_order_of_the_network(report, change):
    row = report.get("wci").details["layers"][0]
    rows = [dict(row, name=f"layer{at}", contribution=float(at % 40)) for at in range(80)]
    many = change("wci", details={**report.get("wci").details, "layers": rows})
    (axis,) = curvature(many, spectrum=False).axes
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert len(names) >= 30
    assert names == sorted(names, key=lambda name: int(name.removeprefix("layer")))
    assert "smaller layers left out" in axis.get_title()


def test_the_spectrum_is_the_density_with_its_extremes(report):
    (axis,) = curvature(report, layers=False).axes
    density, smallest, largest = axis.get_lines()
    assert density.get_xydata().tolist() == [[-40, 1e-4], [0, 1], [2000, 1e-3]]
    assert (smallest.get_xdata()[0], largest.get_xdata()[0]) == (-41.7, 1990.31)
    assert len(curvature(report).axes) == 2


def test_flatness_begins_at_the_loss_of_the_original_weights(report):
    (axis,) = flatness(report).axes
    values = [line.get_xdata()[0] for line in axis.get_lines() if line.get_markersize() == 4]
    assert values == pytest.approx([1.9342, 1.9342 + 0.412])
    rings = [line for line in axis.get_lines() if line.get_fillstyle() == "none"]
    assert list(rings[-1].get_xdata()) == [2.3, 2.4]


def test_a_sweep_is_drawn_over_the_size(report, change):
    rows = [{"xi": 0.1, "value": 0.2, "low": 0.1, "high": 0.3}, {"xi": 0.5, "value": 0.4}]
    assert sweep(report) is None
    (axis,) = sweep(change("flatness.average", details={"sweep": rows})).axes
    (line,) = axis.get_lines()
    assert line.get_xydata().tolist() == [[0.1, 0.2], [0.5, 0.4]]
    assert axis.get_xscale() == "log"


def test_reliability_is_drawn_bin_by_bin(report):
    bins = [
        {"n": 50, "confidence": 0.6, "correct": 25, "low": 0.36, "high": 0.64},
        {"n": 40, "confidence": 0.9, "correct": 36, "low": 0.76, "high": 0.97},
    ]
    rows = [
        Measurement(
            name=f"calibration.{name}ece",
            value=value,
            unit="fraction",
            interval=Interval(low=0.0, high=0.5, level=0.95, method="bootstrap"),
            details={"bins": bins[: 2 - at]},
        )
        for at, (name, value) in enumerate({"": 0.05, "adversarial_": 0.4}.items())
    ]
    many = report.model_copy(update={"measurements": [*report.measurements, *rows]})
    figure = reliability(many)
    (axis,) = figure.axes
    diagonal, clean, adversarial = axis.get_lines()
    assert diagonal.get_xydata().tolist() == [[0, 0], [100, 100]]
    assert clean.get_xydata().tolist() == [[60, 50], [90, 90]]
    assert adversarial.get_xydata().tolist() == [[60, 50]]
    bars = [segment.tolist() for segment in axis.collections[0].get_segments()]
    assert bars == [[[60, 36], [60, 64]], [[90, 76], [90, 97]]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "calibrated",
        "clean, error 5.0 % [0.0, 50.0]",
        "adversarial, error 40.0 % [0.0, 50.0]",
    ]
    page = to_html(many)
    assert "Accuracy over confidence" in page
    assert 'href="#calibration"' in page


def test_nothing_is_drawn_of_what_was_not_measured(report, tmp_path):
    bare = report.model_copy(update={"measurements": []})
    for figure in (
        accuracies(bare),
        curvature(bare),
        flatness(bare),
        sweep(bare),
        reliability(bare),
    ):
        assert figure is None
        assert save(figure, tmp_path / "picture") == []
        assert inline(figure, "a", "b") == ""
    assert list(tmp_path.iterdir()) == []


def test_a_value_outside_its_interval_and_too_many_rows_are_drawn(tmp_path):
    rows = [Whisker(f"row {at}", 5, 1, at) for at in range(100)]
    figure = intervals(rows, "x")
    assert len(figure.axes[0].texts) == MOST_ROWS
    assert save(figure, tmp_path / "many")


def test_a_row_against_a_limit_ends_at_one():
    row = Whisker("a", 3, 2, 6).against(2)
    assert (row.value, row.low, row.high) == (0.25, 0, 1)
    flat = Whisker("a", 2, 2, 2).against(2)
    assert (flat.value, flat.low, flat.high) == (0, 0, 0)


def test_files_are_written_and_repeatable(report, tmp_path):
    (tmp_path / "again").mkdir()
    first = save(curvature(report), tmp_path / "robust.v1", "a title")
    second = save(curvature(report), tmp_path / "again" / "robust.v1", "a title")
    assert [path.name for path in first] == ["robust.v1.svg", "robust.v1.png"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    pixels = matplotlib.image.imread(first[1])
    assert pixels.shape[0] > 200
    assert pixels[..., :3].std() > 0.05  # something is drawn
    root = ElementTree.parse(first[0]).getroot()
    assert "a title" in {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}


@pytest.mark.parametrize("name", ["$x$", "$\\frac{", "a\x1b[31mb", "<script>", "_{", HOSTILE])
def test_foreign_text_is_drawn_as_itself(report, change, tmp_path, name):
    details = report.get("wci").details
    rows = [{**row, "name": f"{name}{at}"} for at, row in enumerate(details["layers"])]
    hostile = change("wci", details={**details, "layers": rows})
    svg = save(curvature(hostile), tmp_path / "layers", name)[0].read_text(encoding="utf-8")
    fragment = inline(curvature(hostile), "layers", name)
    for text in (svg, fragment):
        root = ElementTree.fromstring(text)
        assert not [one for one in root.iter() if one.tag.endswith(("script", "img", "}image"))]
        assert "\x1b" not in text
        assert "\u202e" not in text
    shown = "".join(ElementTree.fromstring(fragment).itertext())
    assert plain(f"{name}0")[-12:] in shown  # a long layer name keeps its end


def fragments(report):
    yield inline(accuracies(report), "a", "Accuracies")
    yield inline(curvature(report), "c", "Curvature")
    yield inline(curvature(report), "d", "Curvature")
    yield inline(flatness(report), "f", "Flatness")


def test_a_fragment_is_well_formed_named_and_fits_any_width(report):
    for svg in fragments(report):
        root = ElementTree.fromstring(svg)
        assert root.tag == "svg"
        assert root[0].tag == "title"
        assert root[0].text in ("Accuracies", "Curvature", "Flatness")
        assert root.get("role") == "img"
        assert root.get("viewBox").startswith("0 0 252 ")
        assert not {"width", "height"} & set(root.attrib)
        for part in ("<?xml", "<!DOCTYPE", "metadata", "<style", "style=", "http", "xmlns"):
            assert part not in svg


def test_colours_are_variables(report):
    for svg in fragments(report):
        colours = re.findall(r'(?:fill|stroke)="([^"]*)"', svg)
        assert set(colours) <= {"none", *(f"var(--{name})" for name in LIGHT)}
        assert "var(--series-a)" in colours
        assert "var(--soft)" in colours
    assert {INK, *(colour for colour, *_ in LINES)} - set(LIGHT.values()) == {"#56b4e9"}


def test_colours_that_stand_for_values_stay():
    with style():
        figure = new_figure(1)
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color="#123456")
        axis.plot([0, 1], [1, 1], color="#ffffff")
        axis.plot([0, 1], [0, 0], color=BLUE.upper())
    svg = inline(figure, "a", "b")
    for colour in ("#123456", "#ffffff", "var(--series-a)"):
        assert f'stroke="{colour}"' in svg


def test_ids_differ_between_figures_and_every_reference_has_its_id(report):
    page = "".join(fragments(report))
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids)) > 3
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', page)) == set(ids)


def test_pixels_stay_whole(report):
    with style():
        figure = new_figure(1)
        figure.subplots().imshow(np.arange(64.0).reshape(8, 8))
    (image,) = ElementTree.fromstring(inline(figure, "a", "b")).iter("image")
    assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", image.get("href"))


def test_the_users_own_settings_change_nothing(report):
    before = inline(accuracies(report), "a", "b")
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "lines.linewidth": 9}):
        assert inline(accuracies(report), "a", "b") == before


def test_modules_of_pictures_do_not_import_matplotlib():
    code = (
        "import sys, robaudit.report.folder, robaudit.report.html, robaudit.batch.study_plot\n"
        "assert 'matplotlib' not in sys.modules and 'PIL' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
