"""The training loop: the published update, its seed, its callback."""

import pytest
import torch
from torch import nn

from robaudit.training import DivergedError, Standard, train


@pytest.fixture
def task():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 1, 2, 2, generator=generator)
    return x, (x.flatten(1).sum(1) > 2).long()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 2))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_the_same_seed_gives_the_same_weights_bit_for_bit(task):
    results = []
    for seed, noise in [(0, 1), (0, 2), (1, 1)]:
        model = net()
        torch.manual_seed(noise)  # what the caller drew before must not matter
        train(model, *task, Standard(), learning_rates=[0.1] * 3, batch_size=16, seed=seed)
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_training_leaves_the_callers_random_state_alone(task):
    torch.manual_seed(5)
    expected = torch.rand(3)
    model = net()
    torch.manual_seed(5)
    train(model, *task, Standard(), learning_rates=[0.1])
    assert torch.equal(torch.rand(3), expected)


def test_one_full_batch_step_is_momentum_descent_with_weight_decay(task):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    x, y = task[0].double(), task[1]
    start, velocity = weights(model), torch.zeros(10, dtype=torch.float64)
    reference = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    for rate in (0.5, 0.2):
        nn.utils.vector_to_parameters(start, reference.parameters())
        gradients = torch.autograd.grad(Standard()(reference, x, y), reference.parameters())
        velocity = 0.9 * velocity + torch.cat([g.flatten() for g in gradients]) + 0.01 * start
        start = start - rate * velocity
    train(model, x, y, Standard(), learning_rates=[0.5, 0.2], batch_size=40, weight_decay=0.01)
    torch.testing.assert_close(weights(model), start)


def test_a_clipped_step_is_no_longer_than_the_rate_times_the_bound(task):
    model = net()
    before = weights(model)
    train(model, *task, Standard(), learning_rates=[0.3], batch_size=40, clip_norm=0.01)
    assert float((weights(model) - before).norm()) == pytest.approx(0.003, rel=1e-3)


def test_every_example_is_used_once_an_epoch(task):
    seen = []

    def objective(model, x, y, generator):
        seen.append(x)
        return Standard()(model, x, y)

    train(net(), *task, objective, learning_rates=[0.1], batch_size=16)
    assert [len(part) for part in seen] == [16, 16, 8]
    ours = torch.cat(seen).flatten(1).tolist()
    assert sorted(ours) == sorted(task[0].flatten(1).tolist())


def test_callback_gets_epochs_from_one_with_the_model_in_eval_mode(task):
    model, calls = net(), []
    train(
        model, *task, Standard(), learning_rates=[0.5] * 5,
        on_epoch=lambda epoch, loss: calls.append((epoch, loss, model.training)),
    )  # fmt: skip
    assert [epoch for epoch, _, _ in calls] == [1, 2, 3, 4, 5]
    assert not any(mode for _, _, mode in calls)
    assert calls[-1][1] < calls[0][1]
    assert not model.training


def test_a_loss_that_is_no_number_stops_before_the_step(task):
    model, calls = net(), []

    def objective(model, x, y, generator):
        calls.append(weights(model))
        return Standard()(model, x, y) * (float("nan") if len(calls) == 3 else 1)

    with pytest.raises(DivergedError, match="nan at step 3") as caught:
        train(model, *task, objective, learning_rates=[0.1], batch_size=10)
    assert caught.value.step == 3
    assert torch.equal(weights(model), calls[2])
    assert caught.value.exit_code == 3
