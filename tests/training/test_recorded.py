"""Training with recorded attack passes against training without; losses read every few steps."""

import pytest
import torch
from support.recorders import Again
from support.trained import net
from torch import nn

from robaudit.engine import captured, frozen
from robaudit.training import DivergedError
from robaudit.training.fitting import fit
from robaudit.training.loop import run_epoch
from robaudit.training.recipe import Recipe
from robaudit.training.recorded import RecordedNetwork
from robaudit.types import ThreatModel

LINF = ThreatModel("linf", 0.1)
PLAIN = {"epochs": 2, "batch_size": 8, "attack": {"steps": 4}}
METHODS = {
    "at": PLAIN,
    "friendly": PLAIN | {"attack": {"steps": 4, "early_stop": 1}, "augment": {"mixup": 1.0}},
    "trades": PLAIN | {"objective": "trades"},
    "everything": PLAIN
    | {"objective": "trades", "trh": {}, "taylor": {"order": 2}, "awp": {}, "swa": {}},
}


@pytest.fixture
def recorder(monkeypatch):
    made = Again()
    monkeypatch.setattr(captured, "recorder_for", lambda device: made)
    return made


def trained(settings, task, precision="fp32"):
    model, losses = net(), []
    recipe = Recipe.model_validate(settings)
    fit(model, *task, recipe, LINF, precision=precision, on_epoch=lambda e: losses.append(e.loss))
    return model.state_dict(), losses


@pytest.mark.parametrize("method", METHODS)
def test_recorded_steps_end_with_the_same_weights(method, task, recorder, monkeypatch):
    """Though the optimizer, the batch norms and perturbed weights write between the replays."""
    weights, losses = trained(METHODS[method], task)
    assert recorder.recorded > 0
    assert recorder.replayed > 20
    with monkeypatch.context() as patched:
        patched.setattr(captured, "recorder_for", lambda device: None)
        plain, plain_losses = trained(METHODS[method], task)
    assert losses == plain_losses
    assert all(torch.equal(weights[name], plain[name]) for name in plain)


def test_so_they_do_in_bfloat16(task, recorder, monkeypatch):
    weights, losses = trained(PLAIN, task, "bf16")
    assert recorder.replayed > 20
    with monkeypatch.context() as patched:
        patched.setattr(captured, "recorder_for", lambda device: None)
        plain, plain_losses = trained(PLAIN, task, "bf16")
    assert losses == plain_losses
    assert all(torch.equal(weights[name], plain[name]) for name in plain)


def test_the_gradient_of_recorded_passes_is_that_of_the_network(task, recorder):
    x, y = task
    with frozen(net()) as model:
        recorded = RecordedNetwork(model, torch.device("cpu"))
        for _ in range(8):
            leaf = x.clone().requires_grad_()
            own, other = (
                torch.autograd.grad(nn.functional.cross_entropy(run(leaf), y), leaf)[0]
                for run in (model, recorded)
            )
            assert torch.equal(own, other)
    assert recorder.replayed > 0


@pytest.mark.parametrize(("every", "done"), [(1, 4), (3, 6), (50, 10)])
def test_a_loss_that_is_no_number_is_named_by_its_step(every, done, task):
    x, y = task
    weight = torch.zeros(1, requires_grad=True)
    steps = []

    def descend(x, y):
        steps.append(1)
        weight.grad = torch.ones(1)
        return torch.tensor(torch.nan if len(steps) >= 4 else 1.0)

    with pytest.raises(DivergedError, match="nan at step 4"):
        run_epoch(
            x, y, descend, torch.optim.SGD([weight], 1.0), torch.Generator(), batch_size=2,
            every=every,
        )  # fmt: skip
    assert len(steps) == done


def test_the_mean_loss_does_not_depend_on_when_losses_are_read(task):
    x, y = task

    def mean(every):
        draw = torch.Generator().manual_seed(3)
        weight = torch.zeros(1, requires_grad=True)

        def descend(x, y):
            weight.grad = torch.ones(1)
            return torch.rand((), generator=draw)

        optimizer = torch.optim.SGD([weight], 1.0)
        return run_epoch(x, y, descend, optimizer, draw, batch_size=3, every=every).loss

    assert mean(1) == mean(4) == mean(None)
