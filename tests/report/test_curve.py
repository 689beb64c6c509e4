"""A curve from reports with known numbers: order, gaps, columns, CSV, picture."""

from __future__ import annotations

import csv
import io
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib.image
import pytest
from rich.cells import cell_len

from robaudit.errors import UsageError
from robaudit.report import comparison_tables, render
from robaudit.report.curve import Number, curve_data, curve_tables
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.formats.markdown import markdown_text
from robaudit.report.formats.terminal import terminal_view
from robaudit.report.pictures.curves import WCI, course
from robaudit.report.pictures.drawing import save
from robaudit.report.wci_curve import QUANTITIES, is_wci_curve, wci_curve
from robaudit.schema import Measurement

EPOCHS = (1, 2, 10, 30)


def numbers(at):
    """Every number of a WCI report, each one different, and smooth in ``at``."""

    def row(name, split, value, error=None, **fields):
        return Measurement(name=name, split=split, value=value, standard_error=error, **fields)

    return [
        row("accuracy.clean", "test", 0.99, unit="fraction"),
        *(row("accuracy.pgd", s, 0.9 - d, 0.01, unit="fraction") for s, d in SPLITS),
        *(row("loss.robust", s, 0.4 + at / 50 - d, 0.02, unit="nats") for s, d in SPLITS),
        row("gap.error", "gap", -0.013 + at / 1000, 0.017, unit="fraction"),
        row("gap.loss", "gap", 0.1 + at / 60, 0.03, unit="nats"),
        *(row("wci", s, 100 + at - 9 * d, 2.5, details={"quantity": "hessian"}) for s, d in SPLITS),
        *(row("wci.bound", s, 150 + at - 9 * d) for s, d in SPLITS),
        *(row("trace.total", s, 4 * (1 + at) ** 2 - d, 1.25) for s, d in SPLITS),
        row("weights.frobenius", "test", 3.0 + at),
    ]


SPLITS = (("test", 0.0), ("train", 0.1))


@pytest.fixture
def wci_report(report):
    def made(source, at, **fields):
        subject = report.subject.model_copy(update={"source": source, **fields})
        return report.model_copy(update={"subject": subject, "measurements": numbers(at)})

    return made


@pytest.fixture
def epochs(wci_report):
    """In the order in which a shell lists them: 1, 10, 2, 30."""
    names = sorted(f"runs/epoch_{epoch}.pt" for epoch in EPOCHS)
    return [wci_report(name, int(re.findall(r"\d+", name)[0])) for name in names]


def without(report, *keys):
    kept = [m for m in report.measurements if (m.name, m.split) not in keys]
    return report.model_copy(update={"measurements": kept})


def table(found, width=100):
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=width, color_system=None).print(
        terminal_view(*curve_tables(found, drawn=True))
    )
    return text.getvalue()


def rows(found):
    return list(csv.DictReader(io.StringIO(csv_text(curve_data(found)))))


def drawn(found, folder):
    return save(course(found, WCI), folder / "curve")


def test_points_are_in_the_order_of_their_epochs(epochs):
    found = wci_curve(epochs)
    assert [point.place for point in found.points] == [1, 2, 10, 30]
    assert [point.name for point in found.points] == [f"epoch_{epoch}" for epoch in EPOCHS]
    assert found.axis.places == (1, 2, 10, 30)
    assert "By the epoch in its name, not in the order given." in found.notes
    assert "By the epoch in its name, not in the order given." not in wci_curve(epochs[::2]).notes


def test_without_numbers_the_order_given_stays(wci_report):
    found = wci_curve([wci_report("zeta.pt", 3), wci_report("alpha.pt", 1)])
    assert [point.name for point in found.points] == ["zeta", "alpha"]
    assert any("in the order given" in note for note in found.notes)
    assert "zeta" in table(found)


def test_recorded_epochs_are_the_axis_and_names_are_shown(wci_report):
    def recorded(source, epoch):
        made = wci_report(source, epoch)
        subject = made.subject.model_copy(update={"epoch": float(epoch)})
        return made.model_copy(update={"subject": subject})

    found = wci_curve([recorded("last.pt", 30), recorded("best.pt", 10)])
    assert [(point.name, point.place) for point in found.points] == [("best", 10), ("last", 30)]
    assert all(word in table(found) for word in ("best", "last", "Epoch"))


def test_every_number_is_the_reports_own(epochs):
    for point in wci_curve(epochs).points:
        for one in QUANTITIES:
            m = point.report.get(one.measurement, one.split)
            expected = m.value**2 if one.key == "weights_squared" else m.value
            error = None if one.key == "weights_squared" else m.standard_error
            assert point.numbers[one.key] == Number(expected, error)


def test_csv_round_trip(epochs):
    read = rows(wci_curve(epochs))
    assert [row["place"] for row in read] == ["1", "2", "10", "30"]
    for row, at in zip(read, EPOCHS, strict=True):
        assert (row["axis"], row["architecture"]) == ("epoch", "PreActResNet-18")
        assert float(row["wci_test"]) == 100 + at
        assert float(row["wci_train"]) == 100 + at - 9 * 0.1
        assert float(row["wci_test_standard_error"]) == 2.5
        assert float(row["gap_error"]) == -0.013 + at / 1000
        assert float(row["gap_error_standard_error"]) == 0.017
        assert float(row["weights_squared"]) == (3.0 + at) ** 2
        assert float(row["trace_train"]) == 4 * (1 + at) ** 2 - 0.1
        assert (row["n_test"], row["n_train"], row["eps"]) == ("1000", "1000", repr(8 / 255))


def test_a_missing_number_leaves_a_gap_and_its_reason(epochs, tmp_path):
    at = next(i for i, report in enumerate(epochs) if "epoch_2." in report.subject.source)
    names = ("wci", "trace.total")
    kept = without(epochs[at], *((name, split) for name in names for split in ("test", "train")))
    lost = [Measurement(name=n, status="failed", reason="the logits overflow") for n in names]
    epochs[at] = kept.model_copy(update={"measurements": [*kept.measurements, *lost]})
    found = wci_curve(epochs)
    assert [n is None for n in found.column("wci_test")] == [False, True, False, False]
    row = rows(found)[1]
    assert row["wci_test"] == row["wci_test_standard_error"] == row["trace_test"] == ""
    assert float(row["gap_loss"]) == 0.1 + 2 / 60
    text = table(found)
    assert re.search(r"^ +2 +- +- ", text, re.M)
    assert "overflow" in text
    svg = drawn(found, tmp_path)[0].read_text()
    assert "not measured" in svg
    # Of WCI and of the trace: a line in two parts, and the error bar of the first, lone point.
    assert sorted(lines(svg, "#0072b2")) == [1, 1, 2, 2]


def test_a_checkpoint_that_could_not_be_audited_keeps_its_place(epochs, tmp_path):
    found = wci_curve([*epochs[:2], "runs/epoch_20.pt", *epochs[2:]])
    assert [point.place for point in found.points] == [1, 2, 10, 20, 30]
    assert found.points[3].report is None
    assert "epoch_20" in " ".join(found.notes)
    row = rows(found)[3]
    assert (row["subject"], row["place"]) == ("runs/epoch_20.pt", "20")
    assert not any(row[one.key] for one in QUANTITIES)
    svg = drawn(found, tmp_path)[0].read_text()
    # Of WCI and of the trace: a line in two parts, and the error bar of the last, lone point.
    assert sorted(lines(svg, "#0072b2")) == [1, 1, 2, 2]
    whole = drawn(wci_curve(epochs), tmp_path)[0].read_text()
    assert lines(whole, "#0072b2") == [1, 1]
    assert "not measured" not in whole


SVG = "{http://www.w3.org/2000/svg}"


def lines(svg, colour):
    """Of how many parts is every drawn line of a colour: no bands, no markers, no legend."""
    root = ET.fromstring(svg)
    aside = [*root.iter(f"{SVG}defs"), *(g for g in root.iter() if "legend" in g.get("id", ""))]
    left_out = {path for group in aside for path in group.iter()}
    return [
        len(re.findall(r"M ", path.get("d")))
        for path in root.iter(f"{SVG}path")
        if path not in left_out
        and "fill: none" in path.get("style", "")
        and f"stroke: {colour}" in path.get("style", "").lower()
    ]


def test_the_picture_has_all_panels_and_is_drawn(epochs, tmp_path):
    paths = drawn(wci_curve(epochs), tmp_path)
    assert [path.name for path in paths] == ["curve.svg", "curve.png"]
    root = ET.fromstring(paths[0].read_text())
    words = " ".join(" ".join(text.itertext()) for text in root.iter(f"{SVG}text"))
    for label in (
        "WCI",
        "robust loss gap",
        "robust error gap",
        "epoch",
        "weights",
        "trace",
        "± one s.e.",
    ):
        assert label in words
    pixels = matplotlib.image.imread(paths[1])
    assert pixels.shape[0] > pixels.shape[1] > 600
    assert pixels[..., :3].std() > 0.05


def test_the_same_curve_gives_the_same_bytes(epochs, tmp_path):
    (tmp_path / "again").mkdir()
    first = drawn(wci_curve(epochs), tmp_path)[0].read_bytes()
    assert drawn(wci_curve(epochs), tmp_path / "again")[0].read_bytes() == first


def test_panels_without_numbers_are_left_out(epochs, tmp_path):
    one_split = [
        without(report, ("gap.loss", "gap"), ("gap.error", "gap"), ("wci", "train"))
        for report in epochs
    ]
    svg = drawn(wci_curve(one_split), tmp_path)[0].read_text()
    assert "robust loss gap" not in svg
    assert "WCI" in svg
    bare = [report.model_copy(update={"measurements": []}) for report in epochs]
    assert drawn(wci_curve(bare), tmp_path / "none") == []


def test_nothing_is_connected_where_there_is_no_course(wci_report, tmp_path):
    unordered = [wci_report(name, at) for at, name in enumerate(("b.pt", "a.pt", "c.pt"))]
    mixed = [wci_report(f"epoch_{at}.pt", at, architecture=f"net {at}") for at in (1, 2, 3)]
    for reports in (unordered, mixed):
        svg = drawn(wci_curve(reports), tmp_path)[0].read_text()
        # Each of three points of two panels with its own error bar, and no line through them.
        assert len(lines(svg, "#0072b2")) == 2 * 3
    assert any("Architectures differ" in note for note in wci_curve(mixed).notes)


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_number_is_cut_at_any_width(epochs, width):
    text = table(wci_curve(epochs), width)
    assert max(cell_len(line.rstrip()) for line in text.splitlines()) <= width
    for value in ("130.0 ±2.5", "1089", "0.600 ±0.030", "3844.0 ±1.2", "-1.2 ±1.7"):
        assert value in text, value
    assert "…" not in text


def test_one_table_where_there_is_room(epochs):
    assert table(wci_curve(epochs), 180).count(" Epoch ") == 1
    assert table(wci_curve(epochs), 100).count(" Epoch ") == 2


def test_courses_rise_where_the_numbers_do(epochs):
    (line,) = re.findall(r"WCI, test +([▁▂▃▄▅▆▇█]+)", table(wci_curve(epochs)))
    assert line == "▁▁▃█"  # 101, 102, 110, 130: eighths of their range, rounded
    assert "▁" not in table(wci_curve(epochs[:3]))


def test_what_changed_is_taken_apart(epochs):
    """WCI 101 to 130; ||W|| 4 to 33; trace 16 to 3844, whose root grows from 4 to 62."""
    (note,) = [note for note in wci_curve(epochs).notes if "times" in note]
    wci, norm, trace = (float(x) for x in re.findall(r"times ([\d.]+\d)", note))
    assert wci == pytest.approx(130 / 101, abs=0.005)
    assert norm == pytest.approx(33 / 4, abs=0.005)
    assert trace == pytest.approx(math.sqrt(3844 / 16), abs=0.05)


def test_what_does_not_compare_is_said(epochs, wci_report):
    other = epochs[1].data.model_copy(update={"n": 7})
    notes = wci_curve([epochs[0], epochs[1].model_copy(update={"data": other})]).notes
    assert any("data differ" in note for note in notes)
    assert not any("times" in note for note in notes)
    bent = [
        m.model_copy(update={"details": {"quantity": "gauss-newton"}}) if m.name == "wci" else m
        for m in epochs[0].measurements
    ]
    bent = epochs[0].model_copy(update={"measurements": bent})
    notes = " ".join(wci_curve([bent, *epochs[1:]]).notes)
    assert "The traces of epoch_1 are of the Gauss-Newton matrix" in notes
    assert "not of the Hessian" in " ".join(wci_curve([bent]).notes)


def test_what_is_a_curve(epochs, report):
    assert is_wci_curve(epochs)
    assert not is_wci_curve(epochs[:1])
    assert not is_wci_curve([report, report])  # flatness and a spectrum have columns of their own
    assert not is_wci_curve([epochs[0], without(epochs[1], ("wci", "test"))])
    with pytest.raises(UsageError):
        wci_curve([])


def test_reports_are_rendered_as_a_curve(epochs):
    assert (
        render(epochs, "table")
        == "\n".join(line.rstrip() for line in table(wci_curve(epochs)).splitlines()) + "\n"
    )
    text = markdown_text(*comparison_tables(epochs))
    assert re.search(r"^\| 10 \| 110.0 ±2.5 \|", text, re.M)
    assert text in render(epochs, "md")
    for line, following in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if line.startswith("|") and following.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", following))


def test_foreign_text_is_shown_and_not_obeyed(wci_report, tmp_path):
    hostile = "$\\frac{[red]x\x1b[31m|<script>`\u202e=_"
    found = wci_curve([wci_report(f"{hostile}.pt", 1), wci_report("=cmd().pt", 2)])
    text = table(found) + markdown_text(*curve_tables(found))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "[red]x" in text
    assert rows(found)[1]["subject"] == "'=cmd().pt"
    svg = drawn(found, tmp_path)[0].read_text()
    ET.fromstring(svg)
    assert "<script>" not in svg


def test_tables_need_neither_torch_nor_numpy(epochs, tmp_path):
    files = []
    for at, report in enumerate(epochs):
        files.append(tmp_path / f"{at}.json")
        files[-1].write_text(report.model_dump_json())
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from robaudit.report import read_report, render\n"
        "from robaudit.report.curve import curve_data\n"
        "from robaudit.report.wci_curve import wci_curve\n"
        f"reports = [read_report(Path(name)) for name in {[str(file) for file in files]!r}]\n"
        "render(reports, 'table'); render(reports, 'md'); curve_data(wci_curve(reports))\n"
        "print('numpy' in sys.modules, 'matplotlib' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["False", "False"]
