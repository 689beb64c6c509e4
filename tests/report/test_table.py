"""One table in every format: nothing cut, nothing lost, nothing executed."""

import csv
import io
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from robaudit.report.formats.csv_text import csv_text
from robaudit.report.formats.html import html_table
from robaudit.report.formats.latex import latex_text
from robaudit.report.formats.markdown import markdown_text
from robaudit.report.formats.terminal import terminal_view
from robaudit.report.table import (
    MISSING,
    Cell,
    Column,
    Table,
    bullets,
    estimate,
    facts,
    names,
    text,
)

HOSTILE = "[red]x\x1b[31m\x1b]8;;http://a\x07y\nz|w<script>`q`\x9b1m\u202e\r\t_k_ \\input{f} $%&#^~"
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


def made(name="at"):
    best = replace(estimate(1.234, 0.25), best=True)
    return Table(
        [
            names("Model"),
            Column("WCI,\ntest", group="Curvature"),
            Column("Trace\nsum", group="Curvature"),
            Column("Gap\npoints", group="Generalisation"),
            text("Remarks"),
        ],
        [
            [
                Cell(name),
                estimate(101.234, 2.5),
                estimate(1e7, 2e5),
                estimate(-0.012, 0.017, 100),
                Cell("slow", tone="bad"),
            ],
            [Cell("plain"), best, MISSING, estimate(0.5), Cell("", bar=0.5)],
        ],
        title="Both",
        caption="On the test examples.",
        notes=["A note."],
        sections={1},
    )


def drawn(*tables, width=100, colour=None):
    file = io.StringIO()
    console = Console(
        file=file, width=width, color_system=colour, force_terminal=colour is not None
    )
    console.print(terminal_view(*tables))
    return file.getvalue()


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_no_number_is_cut_at_any_width(width, stacked):
    shown = drawn(replace(made("a_long_name_" * 9), stacked=stacked), width=width)
    assert max(cell_len(line.rstrip()) for line in shown.splitlines()) <= width
    numbers = ("101.2", "±2.5", "1.000e7", "±0.020e7", "1.23*", "±0.25", "-1.2", "±1.7", "0.5000")
    for number in (*numbers, "slow", "On the test examples.", "A note."):
        assert number in shown
    assert "…" not in shown


def test_a_table_too_wide_is_divided_between_groups_and_every_part_names_its_rows():
    assert drawn(made(), width=100).count(" Model ") == 1
    assert drawn(made(), width=50).count(" Model ") == 3
    assert drawn(made(), width=50).count(" plain ") == 3


def test_points_and_error_bars_stand_under_each_other():
    rows = [[estimate(101.234, 2.5)], [replace(estimate(1.2345, 0.012), best=True)], [MISSING]]
    lines = drawn(Table([Column("WCI")], rows)).splitlines()[2:5]
    assert [line.rstrip() for line in lines] == [
        " 101.2    ±2.5",
        "   1.234* ±0.012",
        "               -",
    ]


def test_a_bar_is_as_long_as_its_share():
    rows = [[Cell(f"{share}", bar=share)] for share in (1.0, 0.5, 0.0)]
    shown = drawn(Table([Column("Share", "left")], rows))
    assert [line.count("█") for line in shown.splitlines()[2:5]] == [12, 6, 0]


def test_markdown_has_a_table_for_each_group_and_the_notes():
    shown = markdown_text(made(), *bullets("Warnings", ["one"]), *bullets("None", []))
    assert "## Both\n\nOn the test examples.\n\n**Curvature**\n\n| Model | WCI, test |" in shown
    assert "| plain | **1.23** ±0.25 | - |" in shown
    assert "- Bold: best of its column" in shown
    assert shown.endswith("## Warnings\n\n- one\n")


def test_csv_holds_numbers_unrounded_and_gaps_empty():
    first, second = csv.DictReader(io.StringIO(csv_text(made())))
    assert (first["WCI, test"], first["WCI, test error bar"]) == ("101.234", "±2.5")
    assert (first["Gap points"], second["Trace sum"]) == ("-0.012", "")
    plain = Table.of(["a", "b", "c", "d", "e"], [[1, 0.1, True, None, "=cmd()"]])
    assert csv_text(plain) == "a,b,c,d,e\n1,0.1,True,,'=cmd()\n"


def test_html_is_well_formed_and_sorts_by_the_numbers():
    fragment = html_table(made(), sortable=True)
    root = ET.fromstring(f"<div>{fragment}</div>")
    assert root.find(".//caption").text == "Both"
    assert [cell.get("data-sort") for cell in root.iter("td")][:3] == [
        "101.234",
        "10000000.0",
        "-0.012",
    ]
    assert root.find(".//strong[@class='best']").text == "1.23"
    assert [row.text for row in root.iter("th") if row.get("scope") == "row"] == ["at", "plain"]
    assert len(list(root.iter("button"))) == 5


def test_latex_typesets_uncertainties():
    shown = latex_text(made(), *bullets("Warnings", ["one"]))
    assert r"\begin{tabular}{lrrrl}" in shown
    assert (
        r"at & \num{101.2 \pm 2.5} & \num{1.000 \pm 0.020 e7} & \num{-1.2 \pm 1.7} & slow \\"
        in shown
    )
    assert r"plain & \textbf{\num{1.23 \pm 0.25}} & -- & \num{0.5000} &  \\" in shown
    assert r"\multicolumn{2}{c}{Curvature}" in shown
    assert shown.count(r"\begin{table}") == shown.count(r"\end{table}") == 1


def test_foreign_text_is_shown_and_not_obeyed():
    tables = [
        Table(
            [names(HOSTILE), Column(HOSTILE, group=HOSTILE)],
            [[Cell(HOSTILE), Cell(HOSTILE, HOSTILE, best=True)]],
            title=HOSTILE,
            caption=HOSTILE,
            notes=[HOSTILE],
        ),
        facts([(HOSTILE, HOSTILE)]),
    ]
    views = [
        drawn(*tables),
        markdown_text(*tables),
        latex_text(*tables),
        csv_text(tables[0]),
        *map(html_table, tables),
    ]
    for shown in views:
        assert not CONTROL.search(shown)
        assert "http://a" not in shown
    assert "[red]x" in views[0]
    assert "\x1b[31m" not in drawn(*tables, colour="truecolor").replace("\x1b[1;31m", "")
    assert "<" not in views[1]
    assert not re.search(r"(?<!\\)[`\[]", views[1])
    assert "\\input" not in views[2]
    assert not re.search(r"[#$%^~<>|]", re.sub(r"\\[#$%&_{}]|^%.*", "", views[2], flags=re.M))
    for fragment in views[4:]:
        assert "<script" not in fragment
        ET.fromstring(f"<div>{fragment}</div>")


def test_tables_need_neither_torch_nor_numpy():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import robaudit.report.formats.latex, robaudit.report.formats.html\n"
        "import robaudit.report.formats.terminal, robaudit.report.formats.csv_text\n"
        "print('numpy' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["False"], run.stderr
