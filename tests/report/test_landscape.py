"""A landscape as files: numbers that come back, pictures that parse and say what they show."""

import csv
import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from robaudit.errors import DataError, UsageError
from robaudit.report.formats.csv_text import csv_text
from robaudit.report.landscape import (
    Landscape,
    Losses,
    Model,
    landscape_object,
)
from robaudit.report.landscape_folder import fill_landscape, landscape_folder
from robaudit.report.landscape_npz import read_npz, write_npz
from robaudit.report.landscape_tables import landscape_data

SETTINGS = {"title": "9 test examples of digits; PGD-5, linf 0.15"}
S = np.linspace(-1, 1, 5)


def line_losses(scale, lines=2, error=0.1):
    each = np.stack([scale * (S**2 + 0.1 * (1 + j)) for j in range(lines)])
    return Losses(each.mean(0), np.full(5, error), each)


def lines(count=1, **options):
    models = tuple(
        Model(f"runs/m_{j}.pt", {"clean": line_losses(1 + j), "robust": line_losses(3 + j)})
        for j in range(count)
    )
    return Landscape(SETTINGS, ("s, relative change",), (S,), models, **options)


def plane(kinds=("clean", "robust"), factor=1.0, **options):
    s, t = np.meshgrid(S, S)
    losses = {
        kind: Losses(factor * (s**2 + 2 * t**2) + 0.1 + j, np.full((5, 5), np.nan))
        for j, kind in enumerate(kinds)
    }
    labels, model = ("s (first)", "t (second)"), Model("a$b_c.pt", losses)
    return Landscape(SETTINGS, labels, (S, S), (model,), **options)


def texts(path):
    tree = ElementTree.parse(path)
    assert tree.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    return {
        "".join(node.itertext()).strip() for node in tree.iter("{http://www.w3.org/2000/svg}text")
    }


def test_pictures_of_lines_say_what_they_show(tmp_path):
    fill_landscape(tmp_path, lines())
    names = {"landscape.npz", "landscape.csv", "landscape.svg", "landscape.png"}
    assert {path.name for path in tmp_path.iterdir()} == names
    shown = texts(tmp_path / "landscape.svg")
    wanted = {"clean", "robust", "± one s.e.", "single directions", "s, relative change", "m_0"}
    assert wanted | {SETTINGS["title"], "loss (nats)"} <= shown
    assert (tmp_path / "landscape.png").read_bytes()[:4] == b"\x89PNG"


def test_several_models_share_a_panel_a_loss(tmp_path):
    fill_landscape(tmp_path, lines(8))
    shown = texts(tmp_path / "landscape.svg")
    assert {f"m_{j}" for j in range(8)} <= shown
    wanted = {"clean loss (nats, log scale)", "robust loss (nats, log scale)"}
    assert wanted <= shown


def test_checkpoints_on_the_line_are_named(tmp_path):
    fill_landscape(tmp_path, lines(checkpoints=(((0.0,), "a/first.pt"), ((1.0,), "b/second.pt"))))
    assert {"first", "second"} <= texts(tmp_path / "landscape.svg")


def test_wide_losses_go_on_a_logarithmic_scale(tmp_path):
    fill_landscape(tmp_path, plane(factor=1e5))
    for name in ("contour", "surface"):
        shown = texts(tmp_path / f"landscape-{name}.svg")
        assert "loss (nats, log scale)" in shown


def test_pictures_of_a_plane(tmp_path):
    corners = (((0.0, 0.0), "x.pt"), ((1.0, 0.0), "y.pt"), ((0.0, 1.0), "z.pt"))
    fill_landscape(tmp_path, plane(checkpoints=corners))
    contour = texts(tmp_path / "landscape-contour.svg")
    surface = texts(tmp_path / "landscape-surface.svg")
    both = {"clean loss", "robust loss", "s (first)", "t (second)", "loss (nats)"}
    assert both | {"x", "y", "z"} <= contour
    assert both | {"s", "t"} <= surface


def test_a_flat_landscape_can_be_drawn(tmp_path):
    fill_landscape(tmp_path, plane(("loss",), factor=0))
    shown = texts(tmp_path / "landscape-contour.svg")
    assert "a$b_c" in shown
    assert "loss" in shown


def test_numbers_come_back_from_every_file(tmp_path):
    made = lines(2)
    fill_landscape(tmp_path, made)
    held = np.load(tmp_path / "landscape.npz")
    assert held["models"].tolist() == ["runs/m_0.pt", "runs/m_1.pt"]
    assert held["robust_lines"].shape == (2, 2, 5)
    rows = list(csv.DictReader((tmp_path / "landscape.csv").open(encoding="utf-8")))
    assert len(rows) == 10
    told = json.loads(json.dumps(landscape_object(made), allow_nan=False))
    for at, model in enumerate(made.models):
        own = [row for row in rows if row["model"] == model.source]
        for kind, losses in model.losses.items():
            assert held[f"{kind}_mean"][at].tolist() == losses.mean.tolist()
            assert [float(row[kind]) for row in own] == losses.mean.tolist()
            assert [float(row[f"{kind}_2"]) for row in own] == losses.lines[1].tolist()
            assert told["models"][at][kind]["mean"] == losses.mean.tolist()
            assert told["models"][at][kind]["lines"] == losses.lines.tolist()


ENDS = (((0.0,), "a.pt"), ((1.0,), "b.pt"))
CORNERS = (((0.0, 0.0), "a"), ((1.0, 0.0), "b"), ((0.0, 1.0), "c"))


@pytest.mark.parametrize("made", [lines(2), lines(checkpoints=ENDS), plane(), plane(("loss",))])
def test_the_arrays_hold_the_whole_landscape(made, tmp_path):
    write_npz(made, tmp_path / "landscape.npz")
    again = read_npz(tmp_path / "landscape.npz")
    assert landscape_object(again) == landscape_object(made)
    assert csv_text(landscape_data(again)) == csv_text(landscape_data(made))


@pytest.mark.parametrize("made", [lines(checkpoints=ENDS), plane(("loss",), checkpoints=CORNERS)])
def test_pictures_are_drawn_again_from_the_arrays(made, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    fill_landscape(first, made)
    fill_landscape(second, read_npz(first / "landscape.npz"))
    for file in first.iterdir():
        if file.suffix != ".npz":
            assert (second / file.name).read_bytes() == file.read_bytes(), file.name


def spoilt(name, value):
    def spoil(arrays):
        arrays[name] = value

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda arrays: arrays.pop("about"),
        lambda arrays: arrays.pop("s"),
        spoilt("about", np.array("{")),
        spoilt("about", np.array('{"settings": 3, "labels": ["s"], "checkpoints": []}')),
        spoilt("about", np.array([None], dtype=object)),
        spoilt("clean_mean", np.full((1, 5), np.nan)),
        spoilt("clean_mean", np.zeros((1, 4))),
        spoilt("clean_standard_error", np.zeros((1, 5), dtype=str)),
        spoilt("models", np.array([])),
        spoilt("s", np.array(["a"] * 5)),
    ],
)
def test_a_file_that_holds_no_landscape_is_refused(spoil, tmp_path):
    fill_landscape(tmp_path, lines())
    path = tmp_path / "landscape.npz"
    with np.load(path) as file:
        arrays = dict(file)
    spoil(arrays)
    np.savez(path, **arrays)
    with pytest.raises(DataError, match="no landscape"):
        read_npz(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"nothing"])
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    path = tmp_path / "landscape.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no landscape"):
        read_npz(path)


def test_a_plane_comes_back_with_both_places():
    made = plane()
    rows = list(csv.DictReader(io.StringIO(csv_text(landscape_data(made)))))
    assert len(rows) == 25
    for row in rows:
        s, t = float(row["s"]), float(row["t"])
        assert float(row["clean"]) == pytest.approx(s**2 + 2 * t**2 + 0.1)
        assert row["clean_standard_error"] == ""  # unknown, as of one example
    told = landscape_object(made)
    assert told["models"][0]["robust"]["standard_error"][0][0] is None
    assert told["models"][0]["clean"]["mean"][4][2] == made.models[0].losses["clean"].mean[4, 2]


def test_the_folder_keeps_what_else_is_there_and_replaces_its_own(tmp_path):
    target = tmp_path / "new" / "out"
    with landscape_folder(target) as folder:
        fill_landscape(folder, plane())
    (target / "report.json").write_text("{}")
    with landscape_folder(target) as folder:
        fill_landscape(folder, lines())
    names = {"landscape.npz", "landscape.csv", "landscape.svg", "landscape.png", "report.json"}
    assert {path.name for path in target.iterdir()} == names


def test_after_an_interrupt_nothing_is_left_and_nothing_gone(tmp_path):
    target = tmp_path / "new" / "out"

    def stopped(made):
        with landscape_folder(target) as folder:
            fill_landscape(folder, made)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped(lines())
    assert list(tmp_path.iterdir()) == []
    with landscape_folder(target) as folder:
        fill_landscape(folder, lines())
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        stopped(plane())
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(UsageError, match="cannot write"), landscape_folder(tmp_path / "out"):
        pass
