"""The adapters, held against MAITE's own protocols where it is installed."""

import numpy as np
import pytest
import torch
from support.console import ROBUST

import robaudit as ra
from robaudit.errors import DataError
from robaudit.maite import MaiteDataset, MaiteModel, PgdAugmentation, examples_of

LINF = ra.ThreatModel("linf", 0.15)


@pytest.fixture(scope="module")
def clf():
    return ra.load(ROBUST, device="cpu")


@pytest.fixture(scope="module")
def digits():
    return ra.load_examples("digits", n=12)


def batch(dataset):
    images, targets, data = zip(*(dataset[at] for at in range(len(dataset))), strict=True)
    return list(images), list(targets), list(data)


def test_a_model_gives_the_classifier_s_probabilities(clf, digits):
    images, _, _ = batch(MaiteDataset(digits))
    found = MaiteModel(clf)(images)
    with torch.no_grad():
        wanted = clf(digits.x).softmax(1)
    assert torch.allclose(torch.tensor(np.stack(found)), wanted, atol=1e-5)
    assert len(found) == 12


def test_there_and_back(digits):
    back = examples_of(MaiteDataset(digits))
    assert torch.equal(back.x, digits.x)
    assert torch.equal(back.y, digits.y)
    assert (back.classes, back.sha256) == (10, digits.sha256)


def test_an_augmentation_is_pgd_and_depends_on_no_batch(clf, digits):
    images, targets, data = batch(MaiteDataset(digits))
    attack = PgdAugmentation(clf, LINF, steps=10)
    moved, same, kept = attack((images, targets, data))
    assert same is targets
    assert kept is data
    assert np.abs(np.stack(moved) - np.stack(images)).max() <= LINF.eps + 1e-6
    right = np.mean([np.argmax(p) == np.argmax(t) for p, t in zip(
        MaiteModel(clf)(moved), targets, strict=True)])  # fmt: skip
    assert right < 1
    alone, _, _ = attack((images[5:6], targets[5:6], data[5:6]))
    assert np.array_equal(alone[0], moved[5])


@pytest.mark.parametrize(
    ("images", "said"),
    [([np.zeros((1, 2, 2)), np.zeros((1, 3, 3))], "shapes"), ([np.full((1, 2, 2), 7)], "pixels")],
)
def test_images_that_are_none(images, said):
    class Data:
        def __init__(self):
            self.metadata = {"id": "mine"}

        def __len__(self):
            return len(images)

        def __getitem__(self, at):
            return images[at], np.eye(3)[0], {"id": at}

    with pytest.raises(DataError, match=said):
        examples_of(Data())


def test_maite_takes_them(clf, digits):
    protocols = pytest.importorskip("maite.protocols.image_classification")
    tasks = pytest.importorskip("maite.tasks")
    dataset, model, attack = MaiteDataset(digits), MaiteModel(clf), PgdAugmentation(clf, LINF)
    assert isinstance(dataset, protocols.Dataset)
    assert isinstance(model, protocols.Model)
    assert isinstance(attack, protocols.Augmentation)

    class Accuracy:
        def __init__(self):
            self.metadata = {"id": "accuracy"}
            self.reset()

        def reset(self):
            self.right = []

        def update(self, predicted, targets, *_):
            pairs = zip(predicted, targets, strict=True)
            self.right += [np.argmax(p) == np.argmax(t) for p, t in pairs]

        def compute(self):
            return {"accuracy": float(np.mean(self.right))}

    metric = Accuracy()
    found, _, _ = tasks.evaluate(
        model=model, dataset=dataset, augmentation=attack, metric=metric, batch_size=4
    )
    assert 0 <= found["accuracy"] < 1
