"""Examples held out: which, what is measured on them, and the rate that follows."""

import pytest
import torch
from support.trained import net
from torch.nn import functional as F

from robaudit.errors import UsageError
from robaudit.training.fitting import fit
from robaudit.training.preparing import prepared
from robaudit.training.recipe import Recipe
from robaudit.training.validation import held_out
from robaudit.types import Examples, ThreatModel

LINF = ThreatModel("linf", 0.1)
SETTINGS = {"epochs": 6, "batch_size": 8, "attack": {"steps": 2}, "validation": 0.3}


def trained(task, settings):
    x, y = task
    recipe, seen = Recipe.model_validate(settings), []
    data = prepared(Examples(x, y, torch.arange(len(x)), "task", "train", ""), recipe)
    model = net()

    def keep(epoch):
        with torch.no_grad():
            clean = float((model(data.held.x).argmax(1) == data.held.y).double().mean())
            loss = float(F.cross_entropy(model(data.held.x), data.held.y))
        seen.append((epoch, clean, loss))

    fit(model, data.x, data.y, recipe, LINF, held=data.held, on_epoch=keep)
    return model, data, seen


def test_examples_are_held_out_by_the_seed_and_trained_on_are_the_others():
    rows, held = held_out(50, 0.1, 0)
    assert len(held) == 5
    assert sorted([*rows.tolist(), *held.tolist()]) == list(range(50))
    assert held.tolist() != held_out(50, 0.1, 1)[1].tolist()
    assert set(held.tolist()) < set(held_out(50, 0.4, 0)[1].tolist())
    assert [len(part) for part in held_out(3, 0.01, 0)] == [2, 1]
    assert [len(part) for part in held_out(3, 0.99, 0)] == [1, 2]
    with pytest.raises(UsageError, match="only one"):
        held_out(1, 0.5, 0)


def test_it_is_the_accuracy_on_them_and_no_more_of_it_is_robust(task):
    _, data, seen = trained(task, SETTINGS)
    assert len(data.held.x) == 6
    for epoch, clean, loss in seen:
        assert epoch.validation.clean == clean
        assert epoch.validation.robust <= clean
        assert epoch.validation.loss >= loss * (1 - 1e-6)


def test_looking_at_them_does_not_change_the_training(task):
    model, data, _ = trained(task, SETTINGS)
    other = net()
    recipe = Recipe.model_validate(SETTINGS | {"validation": 0.0})
    fit(other, data.x, data.y, recipe, LINF, on_epoch=lambda _: None)
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize("patience", [0, 1])
def test_the_rate_falls_after_epochs_without_a_lower_robust_loss(patience, task):
    plan = {"kind": "plateau", "patience": patience, "factor": 0.5}
    _, _, seen = trained(task, SETTINGS | {"schedule": plan, "epochs": 8, "learning_rate": 0.5})
    rate, best, waited = 0.5, float("inf"), 0
    for epoch, _, _ in seen:
        assert epoch.learning_rate == pytest.approx(rate)
        loss = epoch.validation.loss
        # As PyTorch has it, lower means lower by a ten-thousandth.
        best, waited = (loss, 0) if loss < best * (1 - 1e-4) else (best, waited + 1)
        if waited > patience:
            rate, waited = rate / 2, 0
    assert rate < 0.5


@pytest.mark.parametrize(
    ("settings", "said"),
    [(SETTINGS, "no examples are held out"), ({"epochs": 1, "extra_data": "a"}, "none is given")],
)
def test_examples_that_a_recipe_needs_are_asked_for(settings, said, task):
    with pytest.raises(UsageError, match=said):
        fit(net(), *task, Recipe.model_validate(settings), LINF, on_epoch=lambda _: None)
