"""Wrong labels: how many, which, and that an example's do not depend on the others."""

import pytest
import torch

from robaudit.training.label_noise import noisy_labels
from robaudit.training.preparing import prepared
from robaudit.training.recipe import Recipe
from robaudit.types import Examples


def test_labels_are_replaced_by_one_of_all_classes_at_the_rate():
    n, classes, share = 20_000, 5, 0.3
    y = torch.arange(n) % classes
    found = noisy_labels(y, torch.arange(n), classes, share, 0)
    changed = float((found != y).double().mean())
    expected = share * (1 - 1 / classes)
    assert changed == pytest.approx(expected, abs=4 * (expected * (1 - expected) / n) ** 0.5)
    counts = torch.bincount((found - y)[found != y] % classes, minlength=classes)[1:]
    assert counts.min() > 0.9 * counts.double().mean()


def test_an_examples_label_depends_on_the_seed_and_its_index_alone():
    y, index = torch.arange(50) % 3, torch.arange(100, 150)
    found = noisy_labels(y, index, 3, 0.5, 0)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(1))[:20]
    assert torch.equal(noisy_labels(y[order], index[order], 3, 0.5, 0), found[order])
    assert not torch.equal(noisy_labels(y, index, 3, 0.5, 1), found)
    more = noisy_labels(y, index, 3, 0.8, 0)
    assert ((found != y) <= (more != y)).all()  # a larger share changes these and others


def test_a_recipes_noise_is_of_the_datas_classes():
    y = torch.zeros(400, dtype=torch.long)
    examples = Examples(torch.zeros(400, 1, 1, 1), y, torch.arange(400), "mine", "train", "", 4)
    recipe = Recipe.model_validate({"epochs": 1, "label_noise": 0.9, "seed": 3})
    assert prepared(examples, recipe).y.unique().tolist() == [0, 1, 2, 3]
    assert torch.equal(prepared(examples, recipe.changed(label_noise=0.0)).y, y)
    divided = prepared(examples, recipe.changed(validation=0.25))
    assert divided.held.y.unique().tolist() == [0]  # noise is for training alone
    assert torch.equal(divided.y, prepared(examples, recipe).y[divided.rows])
