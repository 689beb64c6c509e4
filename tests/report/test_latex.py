"""The LaTeX of every view is well-formed, and siunitx can read its numbers."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from robaudit.batch.leaderboard import Leaderboard, RankedModel
from robaudit.batch.leaderboard_table import leaderboard_paper
from robaudit.report import render
from robaudit.report.compare import compare
from robaudit.report.compare_outcomes import Audited
from robaudit.report.compare_tables import comparison_paper
from robaudit.report.formats.latex import latex_text
from robaudit.report.paper import best_marked
from robaudit.report.table import Cell, Column, Table, bullets, estimate, names, noted

HOSTILE = "100% \\input{x} & #1 $y_0^2$ ~{ ]["
PDFLATEX = shutil.which("pdflatex")
# What LaTeX has, booktabs and siunitx.
COMMANDS = {
    *("begin", "end", "centering", "caption", "par", "footnotesize", "textbf", "multicolumn"),
    *("toprule", "midrule", "bottomrule", "cmidrule", "num", "sisetup", "pm", "sum", "mathrm"),
    *("textbackslash", "textasciicircum", "textasciitilde", "textless", "textgreater", "textbar"),
    *("|", "\\", *"#$%&_{}", ","),
    *("shortstack", "small", "smallskip", "scriptsize", "setlength", "tabcolsep"),
}
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?( \\pm \d+(\.\d+)?)?( ?e-?\d+)?")


def check(shown):
    """What a TeX engine would stumble over: braces, environments, columns, active characters."""
    assert shown.isascii()
    body = "\n".join(line for line in shown.splitlines() if not line.startswith("%"))
    assert set(re.findall(r"\\([a-zA-Z]+|.)", body)) <= COMMANDS
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", body):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert stack == []
    bare = re.sub(r"\\.", "", body)  # without what is escaped
    depth = 0
    for sign in bare:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert not re.search(r"[%#~\"]", bare)
    assert re.sub(r"\\[#%&_{}]", "", body).count("$") % 2 == 0
    outside = re.sub(r"\$[^$]*\$", "", re.sub(r"\\[$]", "", body))
    assert not re.search(r"(?<!\\)[_^]", outside)
    for part in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", body, re.S):
        columns = re.match(r"\{([lr]+)\}", part)[1]
        for line in part.splitlines():
            if line.endswith(r"\\"):
                spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", line)]
                wide = len(re.findall(r"(?<!\\)&", line)) + 1 + sum(spans) - len(spans)
                assert wide == len(columns), line
    for inside in re.findall(r"\\num\{([^}]*)\}", body):
        assert NUMBER.fullmatch(inside), inside
    assert "booktabs" in shown.splitlines()[0]
    assert "siunitx" in shown.splitlines()[0]
    return body


@pytest.fixture
def pair(report, rename):
    return [report, rename(report, "runs/digits/at_epoch_95%_{x}.pt", 0.99)]


def test_one_report(report):
    shown = check(render([report], "latex"))
    assert r"\caption{at\_epoch\_90: cifar10 test, n = 1000, linf 8/255}" in shown
    assert r"PGD-20 x10 & \num{53.4} & {[}\num{50.2}, \num{56.5}{]} & \% & test" in shown
    assert r"conv1 & \num{2.310} & \num{40.2 \pm 1.2} & \num{14.65} & 21.8 \% \\" in shown
    assert r"$\|W_k\|_F$" in shown
    assert "9f2c" not in shown  # no hashes in a paper
    assert "out of memory" in shown


def test_doubts_are_not_left_out(change):
    doubted = change("accuracy.pgd", doubts=["its gradients are masked"])
    shown = check(render([doubted], "latex"))
    assert "53.4? & " in shown
    assert "In doubt: " in shown
    assert "its gradients are masked" in shown


def test_several_reports_have_the_best_in_bold(pair):
    shown = check(render(pair, "latex"))
    assert r"\caption{cifar10 test, n = 1000, linf 8/255}" in shown
    assert r"\textbf{\num{84.2}} {\scriptsize \num{81.8}--\num{86.4}}" in shown
    assert r"\textbf{\num{1.915 \pm 0.043}}" in shown
    assert r"at\_epoch\_95\%\_\{x\} & " in shown
    assert "Bold: best of its column" in shown


def test_a_comparison_of_two(pair):
    found = compare(*(Audited(one, {}) for one in pair))
    shown = check(latex_text(*comparison_paper(found)))
    assert (
        r"Robust loss (test) & \num{1.934} & \num{1.915} & \num{-0.019} {\scriptsize {[}" in shown
    )
    assert r"\num{+0.4170}" in shown
    assert "retain-explicit-plus" in shown
    assert "nothing is paired" in shown


def test_a_curve(pair):
    reports = []
    for epoch, one in zip((90, 95), pair, strict=True):
        kept = [m for m in one.measurements if not m.name.startswith(("hessian", "flatness"))]
        subject = one.subject.model_copy(update={"source": f"epoch_{epoch}.pt"})
        reports.append(one.model_copy(update={"measurements": kept, "subject": subject}))
    shown = check(render(reports, "latex"))
    assert re.search(r"^90 & \\num\{67.30 \\pm 0.41\} & \\num\{1.934 \\pm 0.043\}", shown, re.M)
    assert r"95 & \num{66.63 \pm 0.41} & \textbf{\num{1.915 \pm 0.043}} &" in shown
    assert shown.count(r"\textbf") == 1  # neither an index nor a gap is best at its lowest
    assert r"\caption{cifar10 test, n = 1000, linf 8/255}" in shown
    assert "one standard error over examples" in shown


def test_a_leaderboard(report):
    models = [
        RankedModel(name, f"{name}.pt", report, report.get("accuracy.pgd"), (1, 2), None)
        for name in ("a_1", "b_2")
    ]
    board = Leaderboard("cifar10, linf 8/255", "linf", "PGD", models)
    (table,) = leaderboard_paper([board])
    assert table.notes[-1].startswith("Place 2-4: second, third or fourth")
    assert not table.ranked  # both are as good
    check(latex_text(table))


def test_the_best_are_marked():
    table = Table(
        [names("Model"), Column("Clean %"), Column("PGD %"), Column("n")],
        [
            [Cell("a"), Cell("80.0", value=0.8), Cell("50.0", value=0.5), Cell("9", value=9)],
            [Cell("b"), Cell("80.0", value=0.8), Cell("51.0", value=0.51), Cell("8", value=8)],
            [Cell("c"), Cell("-"), Cell("51.0", value=0.51), Cell("7", value=7)],
        ],
    )
    marked = best_marked(table, ["Clean %", "PGD %"])
    best = [[cell.best for cell in row] for row in marked.rows]
    assert best == [[False] * 4, [False, False, True, False], [False, False, True, False]]
    lowest = best_marked(table, ["n"], min)
    assert [row[3].best for row in lowest.rows] == [False, False, True]


def test_numbers_and_what_is_none():
    rows = [
        [Cell("1e5"), replace(estimate(1.234, 0.25), best=True)],
        [Cell("-"), estimate(1.0e7, 2e5)],
        [Cell("c"), Cell("12,345", "[1.0, 2.0e-3]")],
        [Cell("d"), Cell("1.0e9", "±5")],
        [Cell("e"), Cell("0", "±0.03")],
        [Cell("f"), Cell("-", tone="missing")],
        [Cell("g"), Cell("84.2 %")],
        [Cell("h"), Cell("<0.0001", "±n/a")],
    ]
    shown = check(latex_text(Table([names("Model"), Column("x")], rows)))
    for line in (
        r"1e5 & \textbf{\num{1.23 \pm 0.25}} \\",
        r"- & \num{1.000 \pm 0.020 e7} \\",
        r"c & \num{12345} {\scriptsize {[}\num{1.0}, \num{2.0e-3}{]}} \\",
        r"d & \num{1.0e9} $\pm$ \num{5} \\",
        r"e & \num{0} $\pm$ \num{0.03} \\",
        r"f & -- \\",
        r"g & 84.2 \% \\",
        r"h & \textless{}0.0001 $\pm$n/a \\",
    ):
        assert line in shown


def test_a_minus_in_text_is_no_hyphen():
    rows = [[Cell("PGD-10"), Cell("-3 +5")], [Cell("2026-11-27"), Cell("1e-3")]]
    shown = check(latex_text(Table([names("Model"), Column("x\n[y]")], rows, notes=["at -0.33"])))
    assert r"PGD-10 & $-$3 $+$5 \\" in shown
    assert "2026-11-27 & " in shown
    assert "at $-$0.33" in shown
    assert r"\shortstack[r]{x\\{}{[}y{]}}" in shown


def test_a_table_wider_than_a_page_is_one_for_each_group():
    groups = ["", *["first"] * 4, *["second"] * 4]
    columns = [Column(f"c{at}", group=group) for at, group in enumerate(groups)]
    rows = [[Cell(str(at) + "." + 14 * "0") for at in range(9)]]
    table = Table(columns, rows, "wide", notes=["said once"])
    one, two = re.findall(r"\\begin\{table\}.*?\\end\{table\}", check(latex_text(table)), re.S)
    assert r"\caption{wide: first}" in one
    first = re.compile(r"\\num\{(\d)\.0+\}")
    assert [first.findall(part) for part in (one, two)] == [[*"01234"], [*"05678"]]
    blank = replace(table, columns=[*columns, Column("empty")], rows=[[*rows[0], Cell()]])
    assert latex_text(blank) == latex_text(table)
    many = replace(table, columns=[replace(column, group="") for column in columns])
    captions = re.findall(r"caption\{(.*)\}", check(latex_text(many)))
    assert captions == ["wide", "wide, continued"]
    assert ("said once" in one, "said once" in two) == (False, True)


@pytest.mark.skipif(PDFLATEX is None, reason="no pdflatex here")
def test_tex_sets_every_view_within_the_page(pair, tmp_path):
    rows = [[Cell(HOSTILE), Cell(HOSTILE, "[1.0, 2.0]", best=True)]]
    foreign = Table([names(HOSTILE), Column(f"x\n{HOSTILE}")], rows, notes=[HOSTILE])
    comparison = comparison_paper(compare(*(Audited(one, {}) for one in pair)))
    views = [render(pair[:1], "latex"), render(pair, "latex"), latex_text(*comparison, foreign)]
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage[margin=2cm]{geometry}"
        r"\usepackage{booktabs}\usepackage{siunitx}\begin{document}"
        + "\n".join(views)
        + r"\end{document}"
    )
    words = (PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "paper.tex")
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert "Overfull" not in ran.stdout, ran.stdout


def test_foreign_text_is_set_as_text():
    table = Table(
        [names(HOSTILE), Column(HOSTILE, group=HOSTILE), Column(HOSTILE, group="other")],
        [[Cell(HOSTILE), Cell(HOSTILE, HOSTILE, best=True), Cell(HOSTILE)]],
        title=HOSTILE,
        caption=HOSTILE,
        notes=[HOSTILE],
    )
    shown = check(latex_text(*noted([table, *bullets(HOSTILE, [HOSTILE])])))
    assert r"\textbackslash{}input\{x\}" in shown
    assert r"\input" not in shown


def test_nothing_is_no_document():
    assert latex_text(*bullets("Warnings", ["one"])) == ""
