"""A run that was stopped and taken up ends with the weights of one that never stopped."""

import functools
import io

import pytest
import torch
from support.trained import net
from torch import nn

from robaudit.training import DivergedError, Standard, train
from robaudit.training.augment import augment
from robaudit.training.compiled import compiled
from robaudit.training.fitting import fit
from robaudit.training.parts import learning_rates, method_of
from robaudit.training.preparing import prepared
from robaudit.training.recipe import Recipe
from robaudit.types import Examples, ThreatModel

LINF = ThreatModel("linf", 0.1)
EVERYTHING = {
    "objective": "trades", "epochs": 4, "batch_size": 8, "attack": {"steps": 2},
    "schedule": {"kind": "cosine", "warmup": 1}, "augment": {"pad": 1, "flip": True},
    "trh": {"schedule": "linear"}, "taylor": {"order": 2}, "awp": {"after": 1},
    "swa": {"decay": 0.9, "after": 1},
}  # fmt: skip
CONTROLLED = {
    "epochs": 4, "batch_size": 8, "attack": {"steps": 2}, "label_smoothing": 0.1,
    "augment": {"cutout": 2, "mixup": 0.8}, "optimizer": "adam", "weight_clip": 0.3,
    "wci": {"threshold": 1.0, "after": 1, "n": 6},
}  # fmt: skip

VALIDATED = {
    "epochs": 4, "batch_size": 8, "validation": 0.3, "objective": "trades",
    "attack": {"steps": 3, "early_stop": 1}, "schedule": {"kind": "plateau", "patience": 0},
    "extra_data": "more.npz", "extra_share": 0.25,
}  # fmt: skip

# Twenty examples are three batches: two rounds an epoch, the second one short.
ENTROPIC = {
    "epochs": 4, "batch_size": 8, "attack": {"steps": 2}, "optimizer": "entropy-sgd",
    "entropy_sgd": {"langevin": 2, "noise": 0.01}, "weight_clip": 0.4,
    "augment": {"autoaugment": True}, "rotations": {},
}  # fmt: skip

ROTATED = {
    "epochs": 4, "batch_size": 8, "attack": {"steps": 2, "early_stop": 1}, "clip_norm": 1.0,
    "augment": {"brightness": 0.3, "mixup": 1.0}, "rotations": {"weight": 0.7},
    "awp": {"after": 1}, "swa": {"decay": 0.9, "after": 1}, "weight_clip": 0.3,
}  # fmt: skip


def run(settings, task, state=None):
    """The epochs, with their states as a file would give them back."""
    model, seen = net(), []

    def keep(epoch):
        file = io.BytesIO()
        torch.save(epoch.state, file)
        torch.rand(7)  # what is drawn while an epoch is looked at must not matter
        seen.append((epoch, file))

    recipe, (x, y) = Recipe.model_validate(settings), task
    examples = Examples(x, y, torch.arange(len(x)), "task", "train", "")
    data = prepared(examples, recipe, extra=examples if recipe.extra_data else None)
    fit(
        model, data.x, data.y, recipe, LINF, held=data.held, extra=data.extra, state=state,
        on_epoch=keep,
    )  # fmt: skip
    return model, seen


def loaded(file):
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    "settings",
    [EVERYTHING, CONTROLLED, VALIDATED, ENTROPIC, ROTATED],
    ids=["everything", "controlled", "validated", "entropic", "rotated"],
)
@pytest.mark.parametrize("stopped", [1, 3])
def test_taken_up_from_any_state_the_weights_are_the_same(settings, stopped, task):
    whole, seen = run(settings, task)
    state = loaded(seen[stopped - 1][1])
    torch.manual_seed(99)
    rest, later = run(settings, task, state)
    assert same(whole.state_dict(), rest.state_dict())
    assert [epoch.number for epoch, _ in later] == list(range(stopped + 1, 5))
    for (one, _), (other, _) in zip(seen[stopped:], later, strict=True):
        assert (one.loss, one.learning_rate, one.wci, one.validation) == (
            other.loss, other.learning_rate, other.wci, other.validation
        )  # fmt: skip
        assert same(one.average, other.average)
        if "rotations" in settings:
            assert same(one.state["head"], other.state["head"])
    assert bool(seen[-1][0].average) is ("swa" in settings)


def test_another_seed_gives_other_weights(task):
    one, _ = run(CONTROLLED, task)
    other, _ = run(CONTROLLED | {"seed": 1}, task)
    assert not same(one.state_dict(), other.state_dict())


def test_without_regularisers_it_is_the_plain_loop(task):
    settings = {"objective": "standard", "epochs": 3, "batch_size": 8, "clip_norm": 0.5}
    model, _ = run(settings, task)
    plain = net()
    train(plain, *task, Standard(), learning_rates=[0.1] * 3, batch_size=8, weight_decay=5e-4,
          clip_norm=0.5)  # fmt: skip
    assert same(model.state_dict(), plain.state_dict())


def test_control_lowers_the_rate_by_the_index(task):
    _, seen = run(CONTROLLED, task)
    epochs = [epoch for epoch, _ in seen]
    assert epochs[0].wci is None
    assert epochs[1].learning_rate == pytest.approx(0.01)
    # Where it exceeds the threshold of one; releases of PyTorch train to different networks.
    assert epochs[2].learning_rate == pytest.approx(0.01 / max(1.0, epochs[1].wci))


def test_a_diverging_run_stops_and_its_last_state_is_finite(task):
    settings = {"objective": "standard", "epochs": 3, "batch_size": 8, "learning_rate": 1e30}
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step [123]$"):
        run(settings, task)
    # One step an epoch: its loss is finite, the weights it leaves are not.
    with pytest.raises(DivergedError, match=r"not finite at step 1$"):
        run(settings | {"batch_size": 20, "learning_rate": 3e38, "weight_decay": 100.0}, task)


def test_training_leaves_the_callers_random_state_alone(task):
    torch.manual_seed(5)
    expected = torch.rand(3)
    model = net()
    torch.manual_seed(5)
    fit(model, *task, Recipe.model_validate(CONTROLLED), LINF, on_epoch=lambda _: None)
    assert torch.equal(torch.rand(3), expected)


def test_a_recipe_says_what_the_method_is():
    recipe = Recipe.model_validate(EVERYTHING | {"penalty": 3.0})
    method = method_of(recipe, LINF)
    assert (method.objective.penalty, method.objective.steps) == (3.0, 2)
    assert (method.trh.schedule, method.taylor.order, method.awp.after) == ("linear", 2, 1)
    assert learning_rates(recipe)[:2] == [0.05, 0.1]
    for name, penalty in {"at": 0, "trades": 6, "mart": 6, "alp": 1}.items():
        plain = Recipe.model_validate({"objective": name, "epochs": 1})
        objective = method_of(plain, LINF).objective
        assert (objective.trace, objective.penalty) == (name, penalty)


def test_augmented_images_are_shifted_with_zeros_behind():
    x = torch.arange(1.0, 17).reshape(1, 1, 4, 4).repeat(200, 1, 1, 1)
    found = augment(x, 1, True, torch.Generator().manual_seed(0))
    padded = torch.zeros(6, 6)
    padded[1:5, 1:5] = x[0, 0]
    crops = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    options = torch.stack([*crops, *(crop.flip(1) for crop in crops)])
    hits = (found[:, 0, None] == options).all((2, 3))
    assert (hits.sum(1) == 1).all()
    assert hits.any(0).all()  # each of the 18 is drawn among 200, all but surely
    assert torch.equal(augment(x, 0, False), x)


FAST = {"epochs": 2, "batch_size": 8, "attack": {"steps": 2}, "awp": {}}


def test_compiled_it_ends_with_the_same_weights(task, monkeypatch):
    """Compiled without the code generator, which a machine may not have."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    recipe, plain = Recipe.model_validate(FAST), run(FAST, task)[0]
    model = net()
    network, why = compiled(model.eval(), task[0], recipe)
    assert why is None
    assert network is not model
    fit(model, *task, recipe, LINF, network=network, on_epoch=lambda epoch: None)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9),
    reason="torch.compile of older releases keeps what a backend raises to itself",
)
def test_what_cannot_be_compiled_is_trained_as_it_is_with_the_reason(task, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler is there")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    model = net().eval()
    network, why = compiled(model, task[0], Recipe.model_validate(FAST))
    assert network is model
    assert "no C++ compiler is there" in why
    assert all(p.grad is None for p in model.parameters())
    same, why = compiled(model, task[0], Recipe.model_validate({"epochs": 1, "trh": {}}))
    assert same is model
    assert "[trh]" in why


@pytest.mark.parametrize("change", ["bf16", "tf32", "channels last"])
def test_other_arithmetic_and_layout_train_to_nearly_the_same_weights(change, task):
    plain, model = run(FAST, task)[0], net()
    if change == "channels last":
        model = model.to(memory_format=torch.channels_last)
    precision = "fp32" if change == "channels last" else change
    recipe = Recipe.model_validate(FAST)
    fit(model, *task, recipe, LINF, precision=precision, on_epoch=lambda epoch: None)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    began, ended, found = (
        nn.utils.parameters_to_vector(which.parameters()).detach()
        for which in (net(), plain, model)
    )
    apart = float((found - ended).norm() / (ended - began).norm())
    # Rounded to bfloat16, some signs of the examples' gradients turn around.
    low, high = {"bf16": (1e-4, 0.5), "tf32": (0, 1e-4), "channels last": (0, 1e-4)}[change]
    assert low <= apart < high
