"""What a report does in a notebook: HTML, a data frame, pictures to restyle, the folder."""

import copy
import json
import subprocess
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from torch import nn

import robaudit as ra
from robaudit.checkpoints import samples_dir
from robaudit.report import fill_folder, read_report, write_report
from robaudit.report.compare import compare
from robaudit.report.compare_outcomes import Audited
from robaudit.report.landscape import Landscape, Losses, Model
from robaudit.report.landscape_npz import write_npz
from robaudit.report.wci_curve import wci_curve
from robaudit.schema import Measurement

HOSTILE = "<script>alert(1)</script>&amp\x1b[31m"


def element(shown):
    return ET.fromstring(
        shown.replace("<style>", "<style><![CDATA[").replace("</style>", "]]></style>")
    )


def cells(shown):
    return ["".join(cell.itertext()) for cell in element(shown).iter() if cell.tag in ("td", "th")]


def test_a_report_is_shown_as_its_table(report):
    shown = report._repr_html_()
    assert len(shown) < 7_000
    assert {"53.4", "[50.2, 56.5]", "Robust accuracy, PGD-20 x10", "failed"} <= set(cells(shown))
    assert "cifar10 test, n = 1000, linf 8/255" in shown
    assert "Not measured: " in shown
    assert "out of memory" in shown


def test_foreign_text_in_a_notebook_is_only_text(report, change):
    change("wci", drop=True)
    subject = report.subject.model_copy(update={"source": HOSTILE})
    changed = change.report.model_copy(update={"subject": subject, "warnings": [HOSTILE]})
    shown = changed._repr_html_()
    assert "<script" not in shown
    assert "\x1b" not in shown
    assert {one.tag for one in element(shown).iter()} <= {
        *("div", "style", "p", "table", "caption", "thead", "tbody", "tr", "th", "td"),
        *("span", "ul", "li", "strong", "abbr"),
    }


def test_comparisons_and_curves_are_shown(report, rename):
    other = rename(report, "runs/digits/at_epoch_95.pt", 0.99)
    found = compare(Audited(report, {}), Audited(other, {}))
    assert "at_epoch_95" in cells(found._repr_html_())
    curve = wci_curve([report, other])._repr_html_()
    assert {"90", "95"} <= set(cells(curve))
    assert "one standard error over examples" in curve


def test_results_of_curvature_are_shown():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    x, y = torch.rand(6, 1, 2, 2), torch.tensor([0, 1] * 3)
    index = ra.curvature.wci(net, x, y)
    shown = index._repr_html_()
    assert f"{index.layers[0].contribution:.4g}" in shown
    assert cells(shown)[5] == "1"
    assert "bound" in shown
    spectrum = ra.curvature.spectrum(net, x, y, top=2, probes=1)
    rows = cells(spectrum._repr_html_())
    assert len(rows) == 3 * 4
    assert float(rows[4]) == pytest.approx(spectrum.largest[0], rel=1e-3)
    assert "nan" not in spectrum._repr_html_()  # one probe has no standard error


def test_a_data_frame_has_a_row_a_measurement(report):
    pandas = pytest.importorskip("pandas")
    frame = report.to_pandas()
    assert len(frame) == len(report.measurements)
    row = frame.set_index(["name", "split"]).loc[("accuracy.pgd", "test")]
    assert (row["value"], row["low"], row["high"], row["n"]) == (0.534, 0.5025, 0.5653, 1000)
    assert (row["label"], row["unit"]) == ("Robust accuracy, PGD-20 x10", "fraction")
    failed = frame[frame["status"] == "failed"].iloc[0]
    assert np.isnan(failed["value"])
    assert failed["reason"] == "out of memory"
    assert frame.attrs["norm"] == "linf"
    assert frame["value"].dtype == float
    both = pandas.concat([frame, report.to_pandas()], keys=["a", "b"])
    assert len(both) == 2 * len(frame)
    nothing = report.model_copy(update={"measurements": []}).to_pandas()
    assert list(nothing.columns) == list(frame.columns)


def test_without_pandas_the_refusal_says_what_to_install(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ra.RobauditError, match=r"pip install 'robaudit\[pandas\]'"):
        report.to_pandas()


def test_figures_can_be_restyled(report, tmp_path):
    figure = report.figure("curvature")
    layers, spectrum = figure.axes
    assert "WCI 67.3" in layers.get_title()
    figure.set_size_inches(5, 4)
    spectrum.set_title("mine")
    figure.savefig(tmp_path / "mine.pdf")
    assert (tmp_path / "mine.pdf").read_bytes()[:5] == b"%PDF-"
    assert report.figure("curvature").axes[1].get_title() == ""  # drawn anew


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("curvatur", "did you mean 'curvature'"),
        ("robustness", "nothing was measured for it\nIt has curvature, accuracies"),
        ("../x", "no picture '../x'\nIt has curvature"),
    ],
)
def test_an_unknown_picture_is_refused_with_those_there_are(report, name, said):
    with pytest.raises(ra.RobauditError, match=said):
        report.figure(name)


def test_a_mistyped_measure_says_what_was_meant(report):
    with pytest.raises(ra.RobauditError, match=r"no measure 'wcii'; did you mean 'wci'\?"):
        report.get("wcii")
    assert report.get("accuracy.cw") is None  # a measure that this report lacks
    assert report.get("wci").value == 67.3


def test_a_measure_that_is_not_registered_can_be_got(report):
    mine = Measurement(name="mine.number", value=1.0)
    more = report.model_copy(update={"measurements": [mine]})
    assert more.get("mine.number") == mine
    assert more.get("mine.number", "train") is None
    with pytest.raises(ra.RobauditError, match=r"did you mean 'mine.number'"):
        more.get("mine.numbr")


@pytest.fixture
def lean(report):
    """Without what the pictures of a folder show, which take a second to draw."""
    kept = [m for m in report.measurements if m.name.startswith("accuracy.")]
    return report.model_copy(update={"measurements": kept})


def test_a_read_report_is_saved_with_what_lay_beside_it(lean, tmp_path):
    outcomes = {"test.index": np.arange(3), "test.accuracy.pgd": np.array([True, False, True])}
    fill_folder(tmp_path / "first", lean, outcomes)
    read = ra.read_report(str(tmp_path / "first"))
    assert read == lean
    assert read.save(tmp_path / "second") == tmp_path / "second"
    names = [{file.name for file in (tmp_path / one).iterdir()} for one in ("first", "second")]
    assert names[0] == names[1] >= {"report.html", "examples.npz", "measurements.csv"}
    with np.load(tmp_path / "second" / "examples.npz") as again:
        assert {name: again[name].tolist() for name in again} == {
            name: rows.tolist() for name, rows in outcomes.items()
        }
    read.save(tmp_path / "first")  # onto itself
    assert (tmp_path / "first" / "examples.npz").exists()
    # a report alone has no outcomes, and no empty file of them
    (tmp_path / "second" / "examples.npz").unlink()
    ra.read_report(tmp_path / "second" / "report.json").save(str(tmp_path / "third"))
    assert not (tmp_path / "third" / "examples.npz").exists()


def test_other_files_are_not_replaced(lean, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ra.RobauditError, match="holds other files"):
        lean.save(tmp_path)


def test_a_landscape_beside_the_report_is_a_picture_of_it(lean, tmp_path):
    places = np.linspace(-1, 1, 5)
    losses = {"clean": Losses(places**2 + 1, 0 * places)}
    lean.save(tmp_path / "a")
    write_npz(
        Landscape({"title": ""}, ("s",), (places,), (Model("x.pt", losses),)),
        tmp_path / "a" / "landscape.npz",
    )
    read = read_report(tmp_path / "a")
    assert read.figure("landscape").axes
    read.save(tmp_path / "a")
    assert {"landscape.npz", "landscape.svg"} <= {file.name for file in (tmp_path / "a").iterdir()}
    with pytest.raises(ra.RobauditError, match=r"It has .*, landscape"):
        read.figure("landscape-surface")


def test_an_audit_in_python_saves_what_the_command_line_writes(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    examples = ra.load_examples("digits", n=8)
    found = ra.run_audit(net, examples, ra.ThreatModel("linf", 0.1), preset="quick")
    found.save(tmp_path / "out")
    there = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"report.json", "report.html", "report.md", "examples.npz", "gallery.npz"} <= there
    with np.load(tmp_path / "out" / "examples.npz") as outcomes:
        right = outcomes["test.accuracy.pgd"]
    assert right.mean() == pytest.approx(found.get("accuracy.pgd").value)
    assert json.loads(found.model_dump_json()).keys() == type(found).model_fields.keys()


def test_reading_and_showing_a_report_imports_nothing_heavy(report, tmp_path):
    write_report(report, tmp_path)
    code = (
        "import sys\n"
        "sys.modules |= dict.fromkeys(('torch', 'pandas', 'matplotlib'))\n"
        "import robaudit as ra\n"
        f"report = ra.read_report({str(tmp_path)!r})\n"
        "print(len(report._repr_html_()) > 1000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True"], done.stderr


def test_a_factory_builds_the_network(tmp_path):
    class Net(nn.Module):
        def __init__(self, width=4):
            super().__init__()
            self.net = nn.Sequential(
                nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10)
            )

        def forward(self, x):
            return self.net(x)

    net = Net()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    x = ra.load_examples("digits", n=4).x
    for factory in (Net, lambda: Net(4)):
        clf = ra.load(tmp_path / "net.pt", arch=factory, normalize="none", device="cpu")
        assert torch.equal(clf(x), net(x))
    with pytest.raises(ra.RobauditError, match="not a function"):
        ra.load(tmp_path / "net.pt", arch=net, normalize="none", device="cpu")


def test_an_audit_takes_a_factory():
    source = samples_dir() / "robust.pt"
    network = ra.load(source, device="cpu").network

    def built():
        return copy.deepcopy(network)

    settings = {"data": "digits", "n": 4, "preset": "quick", "gap": False}
    found = ra.audit_checkpoint(source, arch=built, normalize="none", **settings)
    known = ra.audit_checkpoint(source, arch="digits_resnet", normalize="none", **settings)
    assert (found.subject.architecture, found.subject.architecture_known) == ("built", "said")
    assert found.get("loss.robust").value == known.get("loss.robust").value
