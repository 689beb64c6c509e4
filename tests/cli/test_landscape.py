"""`robaudit landscape` end to end, and what it refuses."""

import csv
import json

import numpy as np
import pytest
import torch
from support.console import ROBUST, SAMPLES, robaudit

EPOCHS = [SAMPLES / "epochs" / f"epoch_{epoch:03d}.pt" for epoch in (1, 12, 240)]
FEW = ("--n", 16, "--steps", 2, "-q")


def told(*words):
    ran = robaudit("landscape", *words, *FEW, "--json")
    assert (ran.code, ran.err) == (0, "")
    return json.loads(ran.out)


def plain_losses(checkpoint):
    ran = robaudit("attack", checkpoint, *FEW, "--json")
    assert ran.code == 0
    found = {m["name"]: m["value"] for m in json.loads(ran.out)["measurements"]}
    return found["loss.clean"], found["loss.robust"]


def test_lines_around_a_checkpoint(place):
    found = told(ROBUST, "--points", 5, "--repeats", 2, "--out", "out")
    assert found["s"] == [-1, -0.5, 0, 0.5, 1]
    (model,) = found["models"]
    clean, robust = plain_losses(ROBUST)
    assert model["clean"]["mean"][2] == pytest.approx(clean, rel=1e-5)
    assert model["robust"]["mean"][2] == pytest.approx(robust, rel=1e-5)
    assert len(model["robust"]["lines"]) == 2
    assert all(error > 0 for error in model["robust"]["standard_error"])
    names = {"landscape.npz", "landscape.csv", "landscape.svg", "landscape.png"}
    assert {path.name for path in (place / "out").iterdir()} == names
    with (place / "out" / "landscape.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["robust"]) for row in rows] == model["robust"]["mean"]
    held = np.load(place / "out" / "landscape.npz")
    assert held["robust_mean"][0].tolist() == model["robust"]["mean"]
    again = robaudit("report", place / "out", "--format", "json", "--out", place / "again")
    assert (again.code, json.loads(again.out)) == (0, found)
    assert {path.name for path in (place / "again").iterdir()} == names
    assert "clean loss" in robaudit("report", place / "out").out
    refused = robaudit("report", place / "out", "--format", "md")
    assert (refused.code, refused.out) == (2, "")
    assert "table, json, csv" in refused.err


def test_the_line_between_two_checkpoints():
    found = told(*EPOCHS[1:], "--points", 5)
    assert found["s"] == [-0.5, 0, 0.5, 1, 1.5]
    assert found["checkpoints"] == [str(path) for path in EPOCHS[1:]]
    for at, checkpoint in ((1, EPOCHS[1]), (3, EPOCHS[2])):
        clean, robust = plain_losses(checkpoint)
        assert found["models"][0]["clean"]["mean"][at] == pytest.approx(clean, rel=1e-5)
        assert found["models"][0]["robust"]["mean"][at] == pytest.approx(robust, rel=1e-5)


def test_the_plane_of_three_checkpoints(place):
    found = told(*EPOCHS, "--points", 5, "--out", "out")
    _, robust = plain_losses(EPOCHS[2])
    assert found["models"][0]["robust"]["mean"][3][1] == pytest.approx(robust, rel=1e-5)
    pictures = {f"landscape-{n}.{k}" for n in ("contour", "surface") for k in ("svg", "png")}
    assert pictures | {"landscape.npz", "landscape.csv"} == {
        path.name for path in (place / "out").iterdir()
    }


def test_several_checkpoints_over_each_other(place):
    words = (ROBUST, SAMPLES / "smooth.safetensors", "--compare", "--points", 3, "--repeats", 1)
    found = told(*words, "--out", "out")
    assert [model["source"] for model in found["models"]] == [str(words[0]), str(words[1])]
    alone = told(ROBUST, "--points", 3, "--repeats", 1)
    assert alone["models"][0] == found["models"][0]
    assert "smooth" in (place / "out" / "landscape.svg").read_text(encoding="utf-8")


def test_adversarial_directions_rise(place):
    found = told(ROBUST, "--directions", "adversarial", "--points", 3, "--repeats", 1)
    assert found["s"] == [-0.05, 0, 0.05]
    robust = found["models"][0]["robust"]["mean"]
    assert robust[2] > 2 * robust[1]


def test_a_plane_of_directions():
    ran = robaudit("landscape", ROBUST, "--dimensions", 2, "--points", 3, *FEW)
    assert ran.code == 0
    assert "clean loss" in ran.out
    assert "robust loss" in ran.out
    assert "s (random direction); t (random direction)" in ran.out


def test_around_images():
    mean = told(ROBUST, "--space", "input", "--points", 3)
    assert mean["s"] == pytest.approx([-0.3, 0, 0.3])
    one = robaudit("landscape", ROBUST, "--space", "input", "--points", 3, "--example", 5,
                   "--range", 0.2, "--json", "-q")  # fmt: skip
    assert one.code == 0
    found = json.loads(one.out)
    assert (found["data"]["n"], found["data"]["example"]) == (1, 5)
    assert found["s"] == [-0.2, 0, 0.2]
    losses = found["models"][0]["loss"]["mean"]
    assert losses[1][2] > losses[1][1]


def test_the_table():
    ran = robaudit("landscape", ROBUST, "--points", 3, "--repeats", 1, *FEW)
    assert ran.code == 0
    assert "16 test examples of digits; PGD-2, linf 0.15" in ran.out
    assert "robust, clean" in ran.out
    assert "Losses in nats, ± one standard error over examples." in ran.out


def test_fixed_examples_lose_less_away_from_the_middle():
    words = (ROBUST, "--points", 3, "--repeats", 1)
    anew, fixed = told(*words), told(*words, "--fixed-examples")
    a, f = (found["models"][0]["robust"]["mean"] for found in (anew, fixed))
    assert f[1] == pytest.approx(a[1], rel=1e-6)
    assert f[0] < a[0]
    assert fixed["attack"]["fixed_examples"] is True


def test_a_run_with_its_path(place):
    mixed = (EPOCHS[2], EPOCHS[0], EPOCHS[1])
    found = told(*mixed, "--trajectory", "--points", 3, "--out", "out")
    assert found["checkpoints"] == [str(path) for path in EPOCHS]  # by epoch
    assert [point["label"] for point in found["path"]] == ["epoch 1", "epoch 12", "epoch 240"]
    assert (found["path"][2]["s"], found["path"][2]["t"]) == (0, 0)
    assert max(point["off_plane"] for point in found["path"]) < 1e-3  # three are in a plane
    assert sum(found["shares"]) == pytest.approx(1)
    for axis in "st":
        values = [point[axis] for point in found["path"]]
        assert found[axis][0] < min(values) < max(values) < found[axis][-1]
    drawn = (place / "out" / "landscape-contour.svg").read_text(encoding="utf-8")
    assert "epoch 240" in drawn
    assert "component 1" in drawn
    again = robaudit("report", place / "out", "--format", "json")
    assert (again.code, json.loads(again.out)) == (0, found)
    assert "off the" in robaudit("report", place / "out").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((ROBUST, "--trajectory"), "three checkpoints or more of one run, not one"),
        ((*EPOCHS[:2], "--trajectory"), "three checkpoints or more of one run, not two"),
        ((*EPOCHS, "--trajectory", "--compare"), "--trajectory is a plane in weight space"),
        ((*EPOCHS[:1] * 3, "--trajectory"), "lie on one line in weight space"),
        ((*EPOCHS[:2], SAMPLES / "smooth.safetensors", "--trajectory"), "no line between"),
        ((ROBUST, "--points", 2), "an odd number of points, 3 at least, not 2"),
        ((*EPOCHS[:2], "--points", 4), "an odd number of points"),
        ((ROBUST, "--range", 0), "must be a positive number, not 0"),
        ((*EPOCHS, ROBUST), "a plane through three, not 4"),
        ((ROBUST, "--compare"), "lines of several checkpoints"),
        ((*EPOCHS[:2], "--compare", "--dimensions", 2), "lines of several checkpoints"),
        ((*EPOCHS[:2], "--dimensions", 2), "a plane goes through three checkpoints, not 2"),
        ((*EPOCHS[:2], "--directions", "adversarial"), "--directions is for cuts around one"),
        ((ROBUST, "--space", "input", "--directions", "adversarial"), "--directions is for cuts"),
        ((*EPOCHS[:2], "--range", 1), "--range is for directions"),
        ((*EPOCHS[:2], "--space", "input"), "--space input takes one checkpoint, not 2"),
        ((ROBUST, "--example", 3), "--example is for --space input"),
        ((ROBUST, "--space", "input", "--example", 3, "--n", 4), "--example is one image"),
        ((ROBUST, "--space", "input", "--example", 99999), "--example 99999: the test split of"),
        ((ROBUST, "--step-size", -1), "--step-size must be positive"),
        ((*EPOCHS[:2], "--sha256", "0" * 64), "--sha256 is one file's"),
        ((ROBUST, SAMPLES / "smooth.safetensors"), "there is no line between"),
    ],
)
def test_refusals(words, said, place):
    ran = robaudit("landscape", *words, "--out", "out", "-q")
    assert ran.code == 2
    assert said in ran.flat
    assert not (place / "out").exists()


@pytest.mark.parametrize("earlier", [False, True])
def test_an_interrupt_takes_nothing_away(earlier, place, monkeypatch):
    words = ("landscape", ROBUST, "--points", 3, "--repeats", 1, *FEW, "--out", "out")
    if earlier:
        assert robaudit(*words).code == 0
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("robaudit.cli.landscape.cut_landscape", interrupted)
    ran = robaudit(*words)
    assert (ran.code, ran.out) == (130, "")
    assert "nothing was written" in ran.err
    assert (place / "out").exists() == earlier
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_checkpoints_are_not_touched(place):
    copy = place / "copy.pt"
    copy.write_bytes(ROBUST.read_bytes())
    told(copy, "--points", 3, "--repeats", 1)
    state, own = (torch.load(path, weights_only=True) for path in (copy, ROBUST))
    assert all(torch.equal(state[name], own[name]) for name in own)
