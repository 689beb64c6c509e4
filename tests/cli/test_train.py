"""``robaudit train``: what a run leaves, that it goes on where it stopped, and what it refuses."""

import csv
import json
import os
import random
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.console import entries, robaudit

import robaudit as ra

SMALL = ("--arch", "digits_resnet(width=4)", "--n", 48, "--epochs", 2)
RECIPE = """
epochs = 3
batch_size = 16
weight_decay = 5e-4
validation = 0.2

[attack]
steps = 2

[swa]
decay = 0.9

[awp]

[trh]
"""

TIRING = """
from torch import nn


class Tiring(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 10))
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (float("nan") if self.calls == 5 else 1)
"""


@pytest.fixture
def recipe(place):
    (place / "recipe.toml").write_text(RECIPE)
    return "recipe.toml"


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_checkpoints_that_every_command_opens_unasked(recipe, place):
    ran = robaudit("train", recipe, *SMALL, "--out", "run", "--track", "robust,wci", "--track-n", 8)
    assert ran.code == 0, ran.err
    last = place / "run" / "checkpoints" / "epoch_002.safetensors"
    assert ran.out.strip() == "run/checkpoints/epoch_002.safetensors"
    assert "epoch 2/2: loss" in ran.err
    assert entries(place / "run") == [
        "averaged", "averaged/epoch_001.safetensors", "averaged/epoch_002.safetensors", "best.pt",
        "checkpoints", "checkpoints/epoch_001.safetensors", "checkpoints/epoch_002.safetensors",
        "last.pt", "metrics.csv", "run.json", "state.pt",
    ]  # fmt: skip
    clf = ra.load(last, device="cpu")
    assert clf.origin.architecture == "digits_resnet(width=4)"
    assert (clf.origin.identified_by, clf.origin.epoch) == ("the file's metadata", 2)
    assert clf.origin.normalization == "none"
    found = rows(place / "run")
    assert [row["epoch"] for row in found] == ["1", "2"]
    examples = ra.load_examples("digits", n=8)
    right = float((clf(examples.x).argmax(1) == examples.y).double().mean())
    assert float(found[1]["accuracy.clean.test"]) == right
    for split in ("test", "train"):
        assert float(found[1][f"accuracy.pgd.{split}"]) <= float(
            found[1][f"accuracy.clean.{split}"]
        )
        assert float(found[1][f"wci.{split}"]) > 0
    averaged = load_file(place / "run" / "averaged" / "epoch_002.safetensors")
    trained = load_file(last)
    assert averaged.keys() == trained.keys()
    assert any(not torch.equal(averaged[key], trained[key]) for key in trained)
    seen = robaudit("inspect", last)
    assert seen.code == 0
    assert "digits_resnet" in seen.out


def test_a_finished_run_is_left_as_it_is_and_another_is_refused(recipe, place):
    assert robaudit("train", recipe, *SMALL, "--out", "run", "-q").code == 0
    files = {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()}
    ran = robaudit("train", recipe, *SMALL, "--out", "run")
    assert ran.code == 0
    assert "nothing is left to do" in ran.err
    assert all(path.read_bytes() == data for path, data in files.items())
    run = json.loads((place / "run" / "run.json").read_text())
    del run["recipe"]["rotations"], run["recipe"]["augment"]["brightness"]  # an earlier release's
    (place / "run" / "run.json").write_text(json.dumps(run))
    assert robaudit("train", recipe, *SMALL, "--out", "run").code == 0
    for words, key in (
        (("--seed", 1), "recipe"), (("--eps", 0.1), "threat"), (("--normalize", "half"), "normal"),
        (("--every", 2), "every"),
    ):  # fmt: skip
        ran = robaudit("train", recipe, *SMALL, "--out", "run", *words)
        assert ran.code == 2
        assert f"holds another run: its {key}" in ran.flat


def forked(*words):
    """The command in a child of this process, where torch is imported and warm."""
    child = os.fork()
    if child == 0:
        code = 5
        try:
            torch.set_num_threads(1)  # the parent's pool of threads does not live here
            code = robaudit(*words).code
        finally:
            os._exit(code)
    return child


def written(folder, epochs, child):
    """Wait until the checkpoints of so many epochs are there; the child's end comes before."""
    while len(list(folder.glob("epoch_*"))) < epochs:
        ended, status = os.waitpid(child, os.WNOHANG)
        assert not ended, status
        time.sleep(0.002)


def test_killed_at_random_moments_it_ends_with_the_same_files(recipe, place):
    command = ("train", recipe, *SMALL[:-1], 6, "--quiet", "--out")
    assert os.waitpid(forked(*command, "whole"), 0)[1] == 0
    draw, killed = random.Random(0), 0
    for epochs in (0, 0, 1, 2, 2, 3, 4, 5):  # the last one is not written yet
        child = forked(*command, "run")
        written(place / "run" / "checkpoints", epochs, child)
        time.sleep(draw.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)  # it is there until it is waited for
        killed += os.waitpid(child, 0)[1] != 0
    assert killed >= 1
    assert os.waitpid(forked(*command, "run"), 0)[1] == 0
    for folder in ("checkpoints", "averaged"):
        whole = sorted((place / "whole" / folder).iterdir())
        assert len(whole) == 6
        for path in whole:
            assert (place / "run" / folder / path.name).read_bytes() == path.read_bytes()
    for name in ("best.pt", "last.pt"):
        assert (place / "run" / name).read_bytes() == (place / "whole" / name).read_bytes()
    for column in ("loss", "accuracy.pgd.validation"):
        assert [row[column] for row in rows(place / "run")] == [
            row[column] for row in rows(place / "whole")
        ]


def test_the_first_epoch_of_the_highest_robust_accuracy_held_out_is_kept(place):
    (place / "quick.toml").write_text("""
epochs = 6
batch_size = 16
learning_rate = 0.3
validation = 0.3

[attack]
steps = 2
early_stop = 1
""")
    words = ("--arch", "digits_resnet(width=4)", "--n", 64, "--every", 4, "--out", "run")
    ran = robaudit("train", "quick.toml", *words)
    assert ran.code == 0, ran.err
    assert "robust of those held out" in ran.flat
    found = rows(place / "run")
    robust = [float(row["accuracy.pgd.validation"]) for row in found]
    best = ra.load(place / "run" / "best.pt", device="cpu")
    assert best.origin.epoch == 1 + robust.index(max(robust))
    assert best.origin.architecture == "digits_resnet(width=4)"
    last = ra.load(place / "run" / "last.pt", device="cpu").network.state_dict()
    file = load_file(place / "run" / "checkpoints" / "epoch_006.safetensors")
    assert all(torch.equal(last[name], value) for name, value in file.items())
    for row in found:
        seconds, speed = float(row["seconds"]), float(row["images_per_second"])
        assert speed * seconds == pytest.approx(45, rel=0.1)  # 19 of 64 are held out
        assert 0.05 < float(row["peak_memory_gib"]) < 100


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(place):
    text = "objective = 'standard'\nepochs = 3\nbatch_size = 16\n"
    (place / "plain.toml").write_text(text)
    (place / "wild.toml").write_text(text + "learning_rate = 1e25\n")
    (place / "tiring.py").write_text(TIRING)
    ran = robaudit("train", "wild.toml", *SMALL, "--out", "at-once")
    assert ran.code == 3
    assert "of epoch 1: training stopped" in ran.flat
    assert "lower learning_rate" in ran.flat
    assert entries(place / "at-once") == ["run.json"]
    ran = robaudit(
        "train", "plain.toml", *SMALL[2:], "--out", "later", "--arch", "tiring.py:Tiring"
    )
    assert ran.code == 3
    assert "the loss is nan at step 2 of epoch 2: training stopped" in ran.flat
    assert "last good checkpoint is later/checkpoints/epoch_001.safetensors" in ran.flat
    (kept,) = (place / "later" / "checkpoints").iterdir()
    assert all(value.isfinite().all() for value in load_file(kept).values())


def test_a_state_that_cannot_be_read_is_said(recipe, place):
    assert robaudit("train", recipe, *SMALL, "--out", "run", "-q").code == 0
    (place / "run" / "state.pt").write_bytes(b"no state")
    ran = robaudit("train", recipe, *SMALL, "--out", "run", "-q")
    assert ran.code == 2
    assert "run/state.pt cannot be read" in ran.flat


def test_a_folder_that_cannot_be_written_is_said(recipe, place):
    (place / "run").mkdir()
    (place / "run" / "run.json").mkdir()
    ran = robaudit("train", recipe, *SMALL, "--out", "run", "-q")
    assert ran.code == 2
    assert "--out run" in ran.flat


def test_every_says_how_often_a_checkpoint_is_written(recipe, place):
    words = (*SMALL[:-1], 5, "--every", 2, "--out", "run", "-q")
    assert robaudit("train", recipe, *words).code == 0
    names = [path.stem for path in sorted((place / "run" / "checkpoints").iterdir())]
    assert names == ["epoch_002", "epoch_004", "epoch_005"]
    assert len(rows(place / "run")) == 5


def test_code_of_the_users_own_and_a_normalisation(recipe, place):
    ran = robaudit(
        "train", recipe, "--arch", "net.py:deep", "--normalize", "0.3;0.4", "--n", 32, "--epochs",
        1, "--out", "run", "-q",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    clf = ra.load(ran.out.strip(), arch="net.py:deep", device="cpu")
    assert clf.origin.normalization == "0.3;0.4"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("digits-at",), "no folder to train in"),
        (("digits-ta", "--out", "run"), "no recipe 'digits-ta'; did you mean 'digits-at'"),
        (("digits-at", "--out", "run", "--track", "wcy"), "did you mean 'wci'"),
        (("digits-at", "--out", "run", "--arch", "digits_resnt"), "did you mean 'digits_resnet'"),
        (("digits-at", "--out", "run", "--arch", "small_cnn"), "does not take images of 1x8x8"),
        (("digits-at", "--out", "run", "--arch", "net.py:five"), "the data has 10 classes"),
        (("digits-at", "--out", "run", "--data", "mnist"), "no network is named"),
        (("digits-at", "--out", "."), "has files in it and no training run"),
        (("digits-trh", "--out", "run", "--arch", "net.py:softmax"), "not the output of a linear"),
        (("digits-at", "--out", "run", "--taylor", "last-layer"), "no Taylor terms"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, said, place):
    ran = robaudit("train", *words, "-q")
    assert ran.code == 2, ran.err
    assert said in ran.flat
    assert "Traceback" not in ran.err


def test_a_file_without_splits_is_trained_on_as_a_whole(recipe, place):
    examples = ra.load_examples("digits", n=32)
    np.savez(place / "mine.npz", x=examples.x.numpy(), y=examples.y.numpy())
    words = ("--data", "mine.npz", "--eps", 0.1, "--arch", "digits_resnet(width=4)")
    ran = robaudit(
        "train", recipe, *words, "--epochs", 1, "--out", "run", "--track", "robust", "--track-n", 4
    )
    assert ran.code == 0, ran.err
    assert "tracking the training split only" in ran.flat
    (row,) = rows(place / "run")
    assert "accuracy.pgd.train" in row
    assert "accuracy.pgd.test" not in row


def test_the_public_codes_taylor_terms_in_place_of_the_papers(place):
    ran = robaudit("train", "digits-rat", *SMALL, "--taylor", "last-layer", "--out", "run", "-q")
    assert ran.code == 0, ran.err
    run = json.loads((place / "run" / "run.json").read_text())
    assert run["recipe"]["taylor"]["kind"] == "last-layer"
    again = robaudit("train", "digits-rat", *SMALL, "--out", "run", "-q")
    assert "its recipe is not the same" in again.flat


BEGUN = """
epochs = 1
batch_size = 8
learning_rate = 1e-12
objective = "standard"
start = "first/checkpoints/epoch_002.safetensors"
extra_data = "more.npz"
"""


@pytest.fixture
def begun(recipe, place):
    assert robaudit("train", recipe, *SMALL, "--out", "first", "-q").code == 0
    examples = ra.load_examples("digits", n=40)
    np.savez(place / "more.npz", x=examples.x.numpy(), y=examples.y.numpy())
    (place / "begun.toml").write_text(BEGUN)
    return ("train", "begun.toml", *SMALL[:-1], 1, "--out", "run", "-q")


def test_a_run_begins_with_the_weights_of_another_and_takes_extra_data(begun, place):
    ran = robaudit(*begun)
    assert ran.code == 0, ran.err
    first, found = (
        load_file(place / folder / "checkpoints" / name)
        for folder, name in (("first", "epoch_002.safetensors"), ("run", "epoch_001.safetensors"))
    )
    weights = [name for name in first if "running" not in name and "num_batches" not in name]
    assert all(torch.allclose(first[name], found[name], atol=1e-6) for name in weights)
    run = json.loads((place / "run" / "run.json").read_text())
    assert run["extra"]["n"] == 40
    assert len(run["start"]) == 64
    # Other weights or images under the same names are another run.
    np.savez(place / "more.npz", x=np.zeros((9, 1, 8, 8), np.float32), y=np.arange(9))
    assert "holds another run: its extra is not the same" in robaudit(*begun).flat
    (place / "more.npz").unlink()
    assert "more.npz: no such file" in robaudit(*begun).flat


@pytest.mark.parametrize(
    ("arrays", "code", "said"),
    [
        ({"x": np.zeros((3, 1, 4, 4), np.float32), "y": np.arange(3)}, 4, "are 1x4x4"),
        ({"x": np.zeros((3, 1, 8, 8), np.float32), "y": np.arange(9, 12)}, 4, "label 11"),
        ({"x": np.zeros((3, 1, 8, 8), np.float32)}, 4, "no arrays x and y"),
    ],
)
def test_extra_data_that_do_not_fit_are_refused(arrays, code, said, begun, place):
    np.savez(place / "more.npz", **arrays)
    ran = robaudit(*begun)
    assert ran.code == code
    assert said in ran.flat


def test_weights_of_another_architecture_are_refused(begun, place):
    ran = robaudit(*begun, "--arch", "digits_resnet(width=5)")
    assert ran.code == 4, ran.err
    assert "Traceback" not in ran.err


def test_images_that_cannot_be_augmented_so_are_refused_before_anything_is_written(place):
    (place / "wide.toml").write_text("epochs = 1\n[augment]\ncutout = 9\n")
    ran = robaudit("train", "wide.toml", *SMALL, "--out", "run", "-q")
    assert ran.code == 2
    assert "cutout = 9: the images have 8 x 8 pixels" in ran.flat
    assert not (place / "run").exists()


def test_a_network_that_cannot_have_a_second_head_is_refused_before_anything_is_written(place):
    (place / "turned.toml").write_text("epochs = 1\n[rotations]\n")
    (place / "nets.py").write_text(
        "from torch import nn\n\n\n"
        "def pooled():\n    return nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())\n"
    )
    words = ("--arch", "nets.py:pooled", "--n", 8, "--out", "run", "-q")
    ran = robaudit("train", "turned.toml", *words)
    assert ran.code == 2, ran.flat
    assert "no top layer" in ran.flat
    assert "[rotations]" in ran.flat
    assert not (place / "run").exists()


def test_labels_by_the_page_are_the_networks_and_are_trained_on(begun, place):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "train.md").read_text("utf-8")
    space = {}
    exec(re.search(r'```python title="label.py"\n(.*?)```', page, re.S)[1], space)
    images = ra.load_examples("digits", split="train").x[100:400]
    checkpoint = place / "first" / "checkpoints" / "epoch_002.safetensors"
    space["label"](checkpoint, images, place / "more.npz")
    model = ra.load(checkpoint, device="cpu")
    found = np.load(place / "more.npz")
    with torch.no_grad():
        assert found["y"].tolist() == [int(model(image[None]).argmax()) for image in images]
    assert robaudit(*begun).code == 0
    assert json.loads((place / "run" / "run.json").read_text())["extra"]["n"] == 300
