"""The adversarial examples to look at: which, how they are drawn, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from robaudit.audit.adversarial_file import Adversarial
from robaudit.errors import DataError
from robaudit.report.gallery import (
    amplification,
    chosen,
    make_gallery,
    read_gallery,
    write_gallery,
)
from robaudit.types import Examples, ThreatModel


class Brightness(nn.Module):
    """Two classes, dark and bright: the logit of "bright" is 8 (mean - 1/2)."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        return torch.stack([torch.zeros_like(mean), 8 * (mean - 0.5)], 1)


@pytest.fixture
def made():
    clean = torch.full((4, 3, 5, 7), 0.25)
    clean[2:] = 0.75
    adversarial = clean.clone()
    adversarial[1] += 0.3125  # over the middle: taken for bright
    adversarial[3] -= 0.125
    y = torch.tensor([0, 0, 1, 1])
    index = torch.tensor([10, 11, 12, 13])
    examples = Examples(clean, y, index, "digits", "test", "ab" * 32, 2)
    broken = torch.tensor([False, True, False, False])
    threat = ThreatModel("linf", 0.3125)
    found = Adversarial(adversarial, y, index, broken, threat, "digits", "test", "ab", "m", "pgd")
    return make_gallery(Brightness(), examples, found)


def test_lower_kinds_and_many_classes_come_first():
    labels = np.array([1, 1, 2, 1, 3, 2])
    kinds = np.array([0, 0, 1, 0, 0, 0])
    assert chosen(labels, kinds, 4) == [0, 4, 5, 1]
    assert chosen(labels, kinds, 99) == [0, 4, 5, 1, 3, 2]


def test_images_that_were_right_and_flip_come_first_and_the_rest_say_what_they_are():
    level = torch.tensor([0.75, 0.25, 0.25, 0.25])  # the first is taken for bright, and is not
    clean = level[:, None, None, None].expand(4, 3, 5, 7).contiguous()
    adversarial = clean.clone()
    adversarial[2] += 0.3125
    y, index = torch.tensor([0, 0, 0, 0]), torch.tensor([10, 11, 12, 13])
    broken = torch.tensor([True, False, True, False])
    examples = Examples(clean, y, index, "d", "test", "ab", 2, class_names=("dark", "bright"))
    threat = ThreatModel("linf", 0.3125)
    found = Adversarial(adversarial, y, index, broken, threat, "d", "test", "ab", "m", "pgd")
    shown = make_gallery(Brightness(), examples, found)
    assert shown.index.tolist() == [12, 11, 13, 10]
    assert [shown.fate(at) for at in range(4)] == ["broken", "resists", "resists", "already wrong"]
    assert shown.called(0) == ("dark", "dark", "bright")
    assert shown.called(3) == ("dark", "bright", "bright")


def test_a_gallery_without_class_names_is_read(made, tmp_path):
    arrays = {name: np.asarray(value) for name, value in vars(made).items() if name != "names"}
    np.savez(tmp_path / "gallery.npz", **arrays)
    assert read_gallery(tmp_path / "gallery.npz").called(0) == ("0", "0", "1")


@pytest.mark.parametrize("largest", [1e-6, 0.5 / 255, 1 / 255, 8 / 255, 0.1, 0.25, 0.5, 1.0])
def test_amplified_perturbation_stays_in_range_and_could_not_be_much_larger(largest):
    factor = amplification(largest)
    assert factor * largest <= 0.5 + 1e-9
    assert factor * largest > 0.5 / 2.5 - 1e-9


def test_pictures_and_predictions_are_those_of_the_network(made):
    order = made.index.tolist()
    assert order[0] == 11
    assert sorted(order) == [10, 11, 12, 13]
    assert made.clean.shape == (4, 5, 7, 3)
    first = [made.clean[0, 0, 0, 0], made.perturbation[0, 0, 0, 0], made.adversarial[0, 0, 0, 0]]
    assert made.factor == 1
    assert first == [64, 207, 143]  # 0.25, 0.5 + 0.3125, 0.5625 in 255ths
    assert made.clean_class.tolist() == made.label.tolist()
    assert made.adversarial_class[0] == 1 != made.label[0]
    sure = 1 / (1 + np.exp(-8 * np.array([0.25, 0.0625])))
    assert made.clean_confidence[0] == pytest.approx(sure[0], abs=1e-6)
    assert made.adversarial_confidence[0] == pytest.approx(sure[1], abs=1e-6)


def test_large_images_are_thinned_and_fewer():
    x = torch.rand(8, 3, 300, 200)
    y = torch.arange(8)
    everything = torch.ones(8, dtype=torch.bool)
    examples = Examples(x, y, y, "big", "test", "ab", 8)
    threat = ThreatModel("l2", 1.0)
    found = Adversarial(x, y, y, everything, threat, "big", "test", "ab", "m", "pgd")
    made = make_gallery(Brightness(), examples, found)
    assert made.stride == 2
    assert made.clean.shape[1:] == (150, 100, 3)
    assert 3 * made.clean.nbytes <= 1_500_000
    assert np.array_equal(
        made.clean[0], np.rint(255 * x[0, :, ::2, ::2].numpy()).transpose(1, 2, 0)
    )


def test_a_file_gives_back_what_was_written(made, tmp_path):
    write_gallery(made, tmp_path / "gallery.npz")
    read = read_gallery(tmp_path / "gallery.npz")
    assert np.array_equal(read.adversarial, made.adversarial)
    assert (read.factor, read.stride, len(read)) == (made.factor, 1, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"clean": np.zeros((4, 5, 7, 4), np.uint8)},
        {"clean": np.zeros((4, 5, 7, 3), np.float32)},
        {"label": np.zeros(3, np.int64)},
        {"label": np.array(["<script>"] * 4)},
        {"clean_confidence": np.array([object()] * 4)},
        {"factor": np.array("x")},
        {"names": np.array([["a", "b", "c"]])},
    ],
)
def test_other_files_are_refused(made, tmp_path, change):
    path = tmp_path / "gallery.npz"
    arrays = {name: np.asarray(value) for name, value in vars(made).items()}
    np.savez(path, **{**arrays, **change})
    with pytest.raises(DataError, match="is no gallery"):
        read_gallery(path)


def test_no_file_and_no_archive_are_refused(tmp_path):
    (tmp_path / "gallery.npz").write_bytes(b"nothing")
    for name in ("gallery.npz", "absent.npz"):
        with pytest.raises(DataError, match="is no gallery"):
            read_gallery(tmp_path / name)
