import matplotlib.image
import pytest

from robaudit.report.plots import write_plots


def test_a_picture_of_what_was_measured(report, tmp_path):
    paths = write_plots(report, tmp_path)
    assert [path.name for path in paths] == ["curvature.svg", "curvature.png"]
    pixels = matplotlib.image.imread(paths[1])
    assert pixels.shape[0] > 200
    assert pixels[..., :3].std() > 0.05  # something is drawn
    assert paths[0].read_text().lstrip().startswith("<?xml")


def test_no_picture_without_curvature(report, tmp_path):
    kept = [m for m in report.measurements if m.name.startswith("accuracy")]
    assert write_plots(report.model_copy(update={"measurements": kept}), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["$x$", "$\\frac{", "a\x1b[31mb", "<script>", "_{"])
def test_foreign_text_is_drawn_as_itself(report, tmp_path, name):
    subject = report.subject.model_copy(update={"source": f"{name}.pt"})
    wci = next(m for m in report.measurements if m.name == "wci")
    rows = [{**row, "name": f"{name}{at}"} for at, row in enumerate(wci.details["layers"])]
    changed = wci.model_copy(update={"details": {**wci.details, "layers": rows}})
    others = [changed if m is wci else m for m in report.measurements]
    hostile = report.model_copy(update={"subject": subject, "measurements": others})
    svg = write_plots(hostile, tmp_path)[0].read_text()
    assert "<script>" not in svg
