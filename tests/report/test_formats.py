"""Every format: nothing cut, nothing lost, nothing executed."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from robaudit.errors import DataError, UsageError
from robaudit.report import (
    comparison_tables,
    layers_csv,
    render,
    screen_tables,
    to_csv,
    to_markdown,
    write_report,
)
from robaudit.report.formats.markdown import markdown_text
from robaudit.report.formats.terminal import terminal_view
from robaudit.report.text import csv_cell, markdown, model_names, plain


def comparison_markdown(reports):
    return markdown_text(*comparison_tables(reports))


HOSTILE = "[red]x\x1b[31m\x1b]8;;http://a\x07y\nz|w<script>`q`\x9b1m\u202e\r\t_k_"


@pytest.fixture
def hostile(report, change):
    """Foreign text in every place that a checkpoint or data set can reach."""
    rows = [dict(row, name=HOSTILE + row["name"]) for row in report.get("wci").details["layers"]]
    details = dict(report.get("wci").details, layers=rows, uncovered=[HOSTILE], estimator=HOSTILE)
    change("wci", details=details, settings={HOSTILE: HOSTILE})
    change("flatness.worst", reason=HOSTILE)
    change("hessian.smallest", name=HOSTILE, unit=HOSTILE)
    changed = change("flatness.average", warnings=[HOSTILE])
    subject = changed.subject.model_copy(
        update=dict.fromkeys(
            ("source", "format", "architecture", "identified_by", "normalization", "sha256"),
            HOSTILE,
        )
    )
    data = changed.data.model_copy(update={"name": HOSTILE})
    return changed.model_copy(update={"subject": subject, "data": data})


def columns(line):
    """The number of cells in a row of a markdown table."""
    return len(re.findall(r"(?<!\\)\|", line)) - 1


@pytest.mark.parametrize("width", [80, 100])
def test_no_line_is_wider_than_the_terminal(report, rename, width):
    long = rename(report, "runs/" + "a_long_name_" * 10 + ".pt")
    six = [rename(report, f"runs/model_{i}.pt", 1 + 0.1 * i) for i in range(6)]
    for reports in ([report], [long], six, [*six[:5], long]):
        lines = render(reports, "table", width).splitlines()
        assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize("width", [80, 100])
def test_no_number_is_cut(report, rename, width):
    six = [rename(report, f"runs/model_{i}.pt", 1 + 0.1 * i) for i in range(6)]
    for reports in ([report], six):
        text = render(reports, "table", width)
        assert "…" not in text
    for value in ("84.2", "81.8-86.4", "±0.052", "67.30", "0.412", "1990"):
        assert value in text


def test_six_models_are_one_table_at_100_columns(report, rename):
    six = [rename(report, f"runs/model_{i}.pt", 1 + 0.1 * i) for i in range(6)]
    assert render(six, "table", 100).count("Model ") == 1


def test_failure_is_shown_with_its_reason_in_every_format(report, rename):
    for format in ("table", "json", "csv", "md"):
        text = render([report], format)
        assert "failed" in text
        assert "out of memory" in text
    several = render([report, rename(report, "b.pt")], "table")
    assert "All models: Worst-case flatness (test) failed: out of memory" in several


def test_hostile_text_in_the_terminal(hostile, rename):
    text = render([hostile], "table") + render([hostile, rename(hostile, HOSTILE)], "table")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "[red]x" in text  # shown, not obeyed
    assert "http://a" not in text


def test_hostile_text_does_not_colour_a_colour_terminal(hostile):
    plain_console, colour = (
        Console(width=100, file=io.StringIO(), force_terminal=True, color_system=system)
        for system in (None, "truecolor")
    )
    for console in (plain_console, colour):
        console.print(terminal_view(*screen_tables([hostile])))
        console.print(terminal_view(*screen_tables([hostile, hostile])))
    assert "\x1b[31m" not in colour.file.getvalue().replace("\x1b[1;31m", "")
    bare = re.sub(r"\x1b\[[0-9;]*m", "", colour.file.getvalue())
    assert "\x1b" not in bare


def test_hostile_text_in_markdown(hostile, rename):
    text = render([hostile, rename(hostile, HOSTILE)], "md")
    assert "<" not in text
    assert not re.search(r"(?<!\\)`", text)
    assert not re.search(r"(?<!\\)\[", text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_hostile_text_in_csv(hostile):
    sources = ["=cmd()", "+1", "-1", "@x", "\t=cmd()", "\x1b[0m=cmd()", "\r\n-2", "\uff1dcmd()"]
    for source in sources:
        subject = hostile.subject.model_copy(update={"source": source})
        report = hostile.model_copy(update={"subject": subject})
        for text in (to_csv(report), layers_csv(report)):
            rows = list(csv.DictReader(io.StringIO(text)))
            assert all(row["subject"].startswith("'") for row in rows)
            assert all(len(row) == len(rows[0]) and None not in row for row in rows)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", to_csv(hostile))


@pytest.mark.parametrize("which", ["report", "hostile"])
def test_markdown_rows_have_as_many_cells_as_their_heading(request, which, rename):
    report = request.getfixturevalue(which)
    width = None
    tables = 0
    text = to_markdown(report) + "\n" + comparison_markdown([report, rename(report, "b.pt", 2)])
    for line in text.splitlines():
        if not line.startswith("|"):
            width = None
            continue
        tables += width is None
        width = width or columns(line)
        assert columns(line) == width, line
    assert tables == 6  # header, measurements, layers, settings, provenance, comparison


def test_csv_holds_every_number_unrounded(report):
    rows = list(csv.DictReader(io.StringIO(to_csv(report))))
    assert len(rows) == len(report.measurements)
    for row, m in zip(rows, report.measurements, strict=True):
        assert (row["name"], row["split"], row["status"]) == (m.name, m.split, m.status)
        assert row["value"] == ("" if m.value is None else repr(m.value))
        assert row["low"] == ("" if m.interval is None else repr(m.interval.low))
        assert row["eps"] == repr(8 / 255)
    smallest = next(row for row in rows if row["name"] == "hessian.smallest")
    assert float(smallest["value"]) == -41.7
    layers = list(csv.DictReader(io.StringIO(layers_csv(report))))
    assert layers[0]["layer"] == "conv1"
    assert sum(float(row["share"]) for row in layers) == pytest.approx(1)


def test_csv_of_several_reports_has_one_header(report, rename):
    text = render([report, rename(report, "b.pt")], "csv")
    assert text.count("subject,sha256") == 1
    assert len(text.splitlines()) == 1 + 2 * len(report.measurements)


def test_deep_networks_are_cut_with_a_word(report, change):
    rows = [dict(report.get("wci").details["layers"][0], name=f"block{i}") for i in range(60)]
    for row in rows:
        row.pop("share")
    changed = change("wci", details={"layers": rows})
    text = render([changed], "table")
    assert "36 smaller layers are not listed; together 60.0 % of WCI." in text
    assert to_markdown(changed).count("| block") == 60
    assert len(layers_csv(changed).splitlines()) == 61


@pytest.mark.parametrize("table", ["none", [{"name": "conv1"}], [{"frobenius": "x"}]])
def test_an_unreadable_layer_table_is_a_data_error(change, table):
    report = change("wci", details={"layers": table})
    for format in ("table", "md"):
        with pytest.raises(DataError, match="layer table of wci"):
            render([report], format)


def test_best_of_a_column(report, rename):
    pair = [report, rename(report, "runs/better.pt", 1.1)]
    text = render(pair, "table")
    assert "92.6*" in text  # accuracy: the higher
    assert "67.30*" in text  # WCI: the lower
    assert "84.2*" not in text
    assert "**92.6**" in comparison_markdown(pair)


def test_nothing_is_ranked_across_data_or_threat(report, rename):
    other = rename(report, "b.pt", 1.1)
    data = other.data.model_copy(update={"sha256": "00" * 32})
    threat = other.threat.model_copy(update={"eps": 0.1})
    for update, words in (
        ({"data": data}, "examples differ"),
        ({"threat": threat}, "models differ"),
    ):
        text = render([report, other.model_copy(update=update)], "table")
        assert words in text
        assert "*" not in text.replace("* (bold)", "")


def test_a_lone_report_compares_with_nothing(report):
    assert "best of its column" not in comparison_markdown([report])
    with pytest.raises(UsageError):
        comparison_tables([])
    with pytest.raises(UsageError):
        render([], "table")
    with pytest.raises(UsageError, match="unknown format"):
        render([report], "xml")


def test_names():
    assert model_names(["a/best.pt", "b/best.pt", "c/last.pt"]) == ["a/best", "b/best", "last"]
    assert model_names(["best.pt", "best.pt"]) == ["best (1)", "best (2)"]
    assert model_names(["robustbench:cifar10/Linf/Wang2023Better_WRN-28-10"]) == [
        "Wang2023Better_WRN-28-10"
    ]


def test_text():
    assert plain("a\x1b[1;31mb\x1b]0;title\x07c\u2028d") == "abc d"
    assert markdown("layer_1._x_ #2") == r"layer_1.\_x\_ \#2"
    assert csv_cell("a=b") == "a=b"


def test_rendering_needs_no_torch(report, tmp_path):
    path = write_report(report, tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from robaudit.report import read_report, render, schema_json\n"
        f"report = read_report(Path({str(path)!r}))\n"
        "for format in ('table', 'json', 'csv', 'md'): render([report, report], format)\n"
        "schema_json()\n"
        "print(*(name for name in ('torchvision', 'scipy', 'numpy') if name in sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == ""
