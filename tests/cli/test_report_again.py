"""`robaudit report`: the same report, once more."""

import json
import shutil

import pytest
from support.console import ROBUST, robaudit


def test_each_format_is_the_folders_own(audited):
    folder, out = audited
    again = {
        format: robaudit("report", folder, "--format", format)
        for format in ("md", "csv", "json", "table")
    }
    assert all((ran.code, ran.err) == (0, "") for ran in again.values())
    assert again["md"].out == (folder / "report.md").read_text(encoding="utf-8")
    assert again["csv"].out == (folder / "measurements.csv").read_text(encoding="utf-8")
    assert again["json"].out == out
    assert again["table"].out.startswith("robaudit: robust\n")
    assert robaudit("report", folder / "report.json", "--format", "md").out == again["md"].out


def test_the_table_is_the_commands_own(place):
    ran = robaudit("attack", ROBUST, "--n", 8, "--steps", 1, "--out", "out")
    assert robaudit("report", "out").out == ran.out


def test_out_takes_what_would_be_printed(audited, place):
    folder, _ = audited
    ran = robaudit("report", folder, "--format", "csv", "--out", "table.csv")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert (place / "table.csv").read_text() == (folder / "measurements.csv").read_text()


def test_html_is_a_page_or_an_index(audited, place):
    one = robaudit("report", audited[0], "--format", "html")
    assert (one.code, one.err) == (0, "")
    assert one.out.startswith("<!doctype html>")
    shutil.copytree(audited[0], place / "below" / "a")
    (place / "below" / "a" / "report.html").write_text(one.out, encoding="utf-8")
    words = ("report", place / "below" / "a", audited[0], "--format", "html")
    ran = robaudit(*words, "--out", "index.html")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    index = (place / "index.html").read_text(encoding="utf-8")
    assert index.count('href="./below/a/report.html"') == index.count('href="./') == 1
    assert "2 checkpoints" in index


def test_parquet_goes_to_a_file(audited, place):
    parquet = pytest.importorskip("pyarrow.parquet")
    ran = robaudit("report", audited[0], audited[0], "--format", "parquet", "--out", "all.parquet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    table = parquet.read_table(place / "all.parquet")
    assert table.num_rows == 2 * len(json.loads(audited[1])["measurements"])


def test_parquet_is_not_for_a_terminal(audited):
    ran = robaudit("report", audited[0], "--format", "parquet")
    assert (ran.code, ran.out) == (2, "")
    assert "--out FILE.parquet" in ran.err


def test_a_folder_of_report_folders_stands_for_all_of_them(audited, place):
    for name in ("b", "a"):
        shutil.copytree(audited[0], place / "all" / name)
    found = json.loads(robaudit("report", "all", "--format", "json").out)
    assert found == [json.loads(audited[1])] * 2


@pytest.mark.parametrize(
    ("text", "code", "names"),
    [
        (None, 2, ["no report", "report.json"]),
        ("{", 4, ["report.json", "not JSON"]),
        ('{"schema_version": 99}', 4, ["newer", "99"]),
        ('{"schema_version": 1}', 4, ["report.json", "not valid"]),
    ],
)
def test_what_is_no_report(text, code, names, place):
    if text is not None:
        (place / "report.json").write_text(text)
    ran = robaudit("report", place)
    assert (ran.code, ran.out) == (code, "")
    assert len(ran.err.splitlines()) <= 3  # the hint follows a blank line
    for name in names:
        assert name in ran.err


def test_out_that_cannot_be_written(audited, place):
    ran = robaudit("report", audited[0], "--out", place / "net.py" / "below")
    assert (ran.code, ran.out) == (2, "")
    assert "net.py/below" in ran.err


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("r.html", "<!doctype html>"),
        ("r.HTML", "<!doctype html>"),
        ("r.json", "{\n"),
        ("r.csv", "subject,"),
        ("r.md", "# robaudit: robust"),
        ("r.tex", "% In the preamble: "),
        ("r.txt", "robaudit: robust\n"),
        ("r", "robaudit: robust\n"),
    ],
)
def test_the_format_is_that_of_the_files_suffix(name, begins, audited, place):
    ran = robaudit("report", audited[0], "--out", name)
    assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert (place / name).read_text(encoding="utf-8").startswith(begins)


def test_a_format_that_is_said_wins_over_the_suffix(audited, place):
    ran = robaudit("report", audited[0], "--format", "csv", "--out", "r.txt")
    assert ran.code == 0
    assert (place / "r.txt").read_text().startswith("subject,")


def test_a_suffix_of_no_format_is_refused(audited, place):
    for words in (("report", audited[0]), ("compare", audited[0], audited[0])):
        ran = robaudit(*words, "--out", "r.docx")
        assert (ran.code, ran.out) == (2, "")
        assert "--out r.docx: .docx is no format" in ran.flat
        assert ".html" in ran.flat
        assert not (place / "r.docx").exists()


def test_latex_is_a_format(audited, place):
    one = robaudit("report", audited[0], "--format", "latex").out
    assert r"\begin{tabular}" in one
    assert r"\num{" in one
    shutil.copytree(audited[0], place / "b")
    several = robaudit("report", audited[0], "b", "--format", "latex").out
    parts = several.split(r"\begin{table}")[1:]  # of columns that fit on a page
    rows = [[line.split(" &")[0] for line in part.splitlines() if " & " in line] for part in parts]
    assert parts
    assert all(name.endswith(f"({k})") for _, *names in rows for k, name in enumerate(names, 1))
    assert {len(names) for names in rows} == {3}
    compared = robaudit("compare", audited[0], "b", "--out", "c.tex")
    assert (compared.code, compared.out) == (0, "")
    assert "Difference" in (place / "c.tex").read_text()


@pytest.mark.slow
def test_latex_of_a_curve_and_of_flatness(place):
    shutil.copy(ROBUST, place / "epoch_1.pt")
    shutil.copy(ROBUST, place / "epoch_2.pt")
    words = ("epoch_1.pt", "epoch_2.pt", "--n", 4, "--steps", 1, "--format", "latex")
    curve = robaudit("wci", *words).out
    parts = curve.split(r"\begin{table}")[1:]  # of columns that fit on a page
    assert parts
    assert all(part.count("\n1 & ") == part.count("\n2 & ") == 1 for part in parts)
    assert r" \pm " in curve
    robaudit("flatness", *words[:-2], "--perturbations", 2, "--out", "flat")
    flat = robaudit("report", "flat", "--format", "latex")
    assert flat.code == 0, flat.err
    assert "flatness" in flat.out.lower()
    assert robaudit("report", "flat", "--out", "flat.tex").code == 0
    assert (place / "flat.tex").read_text() == flat.out


def test_of_a_landscape_out_names_a_folder(place):
    (place / "land").mkdir()
    (place / "land" / "landscape.npz").write_bytes(b"")
    for name, said in (("x.csv", "names a folder"), ("x.html", "no format html")):
        ran = robaudit("report", "land", "--out", name)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.flat
        assert not (place / name).exists()
