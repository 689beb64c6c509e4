"""The studies run from end to end, as small as can be, and go on where they stopped."""

import importlib
import io
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import sem

from robaudit.training.recipe import read_recipe

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(STUDIES))
    yield
    for name in ("running", *(path.stem for path in STUDIES.glob("*.py"))):
        sys.modules.pop(name, None)


def study(name, *words):
    module, running = importlib.import_module(name), importlib.import_module("running")
    return running.main(name, module.run, module.report, words, getattr(module, "OPTIONS", None))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("digits", ["methods.md", "summary.md", "correlations.md", "study.csv", "study.svg"]),
        ("overfitting", ["schedules.md", "schedules.svg", "measures.md", "epochs.svg"]),
        ("swa_rat", ["swa.md", "rat.md"]),
        ("two_moons", ["moons.md", "moons.svg"]),
        ("wci_table_1", ["schedules.md"]),
        ("wci_fig_2", ["falls.md"]),
        ("wci_fig_5", ["curves.md"]),
        ("flatness_fig_7", ["methods.md", "correlations.md"]),
        ("rat_tables", ["taylor.md", "transfer.md", "surfaces.md"]),
        ("rat_networks", ["networks.md"]),
        ("trh_fig_3", ["weights.md"]),
        ("trh_tables", ["defences.md"]),
        ("cost_tables", ["costs.md"]),
    ],
)
def test_a_study_runs_to_its_end_and_is_then_done(name, files, tmp_path, capsys):
    assert study(name, "--smoke", "--out", str(tmp_path)) == 0
    for file in files:
        text = (tmp_path / file).read_text("utf-8")
        assert len(text) > 100
        assert "nan" not in text.lower().replace("dominant", "")
    first = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    capsys.readouterr()
    assert study(name, "--smoke", "--out", str(tmp_path), "--minutes", "1") == 0
    assert "done" not in capsys.readouterr().out.replace("seed 0 done", "")
    assert all(path.read_bytes() == data for path, data in first.items())


@pytest.mark.parametrize(
    "name", ["wci_fig_5", "flatness_fig_7", "rat_tables", "rat_networks", "trh_fig_3", "trh_tables"]
)
def test_the_rows_of_a_table_are_recipes(name, tmp_path):
    tables, module = importlib.import_module("paper_tables"), importlib.import_module(name)
    assert len({tables.slug(row) for row in module.ROWS}) == len(module.ROWS)
    path = tmp_path / "recipe.toml"
    for text in module.ROWS.values():
        path.write_text(tables.recipe(text, 40, 3))
        read = read_recipe(str(path))
        assert (read.epochs, read.seed) == (40, 3)
        if "[schedule]" not in text:
            assert read.schedule.milestones == (10, 25)
        if "[wci]" not in text:
            path.write_text(
                tables.recipe(text, 40, 3, 5, tables.Setting(eps=0.2, schedule=tables.COSINE))
            )
            read = read_recipe(str(path))
            assert (read.attack.steps, read.attack.step_size) == (5, 0.1)
            assert read.attack.early_stop == (1 if "early_stop" in text else None)
            assert read.schedule.kind == (
                "cosine" if "[schedule]" not in text else read.schedule.kind
            )


def test_rates_fall_in_eighths_and_once_halfway(tmp_path):
    running, module = importlib.import_module("running"), importlib.import_module("wci_fig_2")
    given = Namespace(out=tmp_path, smoke=False, minutes=1, epochs=80, seeds=1)
    found = {}
    for name, text in module.rows(running.Study(given)).items():
        path = tmp_path / "recipe.toml"
        path.write_text(importlib.import_module("paper_tables").recipe(text, 80, 0))
        read = read_recipe(str(path))
        found[name] = (read.learning_rate, read.schedule.factor, read.schedule.milestones)
    assert found["falls after 1/8"] == (0.1, 0.1, (10, 30))
    assert found["falls after 4/8"] == (0.1, 0.1, (40, 60))
    assert found["0.01 to 0.0001"] == (0.01, 0.01, (40,))
    assert len(set(found.values())) == len(found) == 8


def test_a_mean_has_its_standard_error():
    tables = importlib.import_module("paper_tables")
    assert tables.mean([3.0, 5.0, 10.0]) == f"6 ±{sem([3.0, 5.0, 10.0]):.2g}"
    assert tables.mean([3.0]) == "3"


def test_smoothness_of_a_parabola():
    places = torch.linspace(-2, 2, 9, dtype=torch.float64)  # in radii
    loss = 1 + 3 * (places**2).expand(9, 9)[..., None]  # second difference 6 along s, none across
    extent, bend, rough = importlib.import_module("rat_tables").smoothness(loss, 0.5)
    assert (extent, bend, rough) == pytest.approx((12, 3, 0.25))


def test_without_time_nothing_is_begun_and_the_status_says_so(tmp_path, capsys):
    assert study("digits", "--smoke", "--out", str(tmp_path), "--minutes", "-1") == 1
    assert "out of time" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_two_moons_lie_in_the_unit_square_and_apart():
    x, y = importlib.import_module("two_moons").two_moons(400, 0.0, 0)
    assert x.min() >= 0
    assert x.max() <= 1
    points = x.reshape(-1, 2)
    apart = np.linalg.norm(points[y == 0][:, None] - points[y == 1][None], axis=2).min()
    assert apart > 0.05


@pytest.fixture
def photographs(tmp_path):
    """Plain coloured images as JPEG, in the files that the study of CIFAR-10 reads."""
    for split, n in (("train", 40), ("test", 16)):
        colors = np.random.default_rng(n).integers(0, 256, (n, 3), dtype=np.uint8)
        files = []
        for color in colors:
            file = io.BytesIO()
            Image.new("RGB", (32, 32), tuple(map(int, color))).save(file, "jpeg", quality=95)
            files.append(file.getvalue())
        offsets = np.cumsum([0, *map(len, files)])
        blob = np.frombuffer(b"".join(files), np.uint8)
        y = np.arange(n, dtype=np.uint8) % 10
        np.savez(tmp_path / f"set_{split}.npz", jpeg=blob, offsets=offsets, y=y, colors=colors)
    return tmp_path / "set_train.npz"


@pytest.mark.parametrize("split", ["train", "test"])
def test_jpeg_images_are_decoded_in_order_with_their_labels(split, photographs):
    x, y = importlib.import_module("cifar10").decoded(photographs, split)
    colors = np.load(photographs.with_name(f"set_{split}.npz"))["colors"]
    assert x.dtype == np.uint8
    assert x.shape == (len(colors), 3, 32, 32)
    assert np.abs(x.astype(int) - colors[:, :, None, None]).max() <= 4  # what JPEG rounds away
    assert y.tolist() == [k % 10 for k in range(len(colors))]


@pytest.mark.slow
def test_the_study_of_cifar10_runs_to_its_end(photographs, tmp_path, monkeypatch):
    module, running = importlib.import_module("cifar10"), importlib.import_module("running")
    monkeypatch.setattr(sys.modules["overfitting"], "schedules", lambda scale: {"piecewise": ""})
    words = ("--smoke", "--n", "8", "--out", str(tmp_path / "out"), "--data", str(photographs))
    assert running.main("", module.run, module.report, words, module.OPTIONS) == 0
    assert "robust accuracy" in (tmp_path / "out" / "measures.md").read_text("utf-8")
    assert len(list((tmp_path / "out").glob("*/checkpoints/epoch_002.safetensors"))) == 1
