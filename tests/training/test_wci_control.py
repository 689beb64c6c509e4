"""The controller's rule, its interface, and the index it measures."""

import pytest
import torch
from torch import nn

from robaudit.attacks import pgd
from robaudit.curvature import wci
from robaudit.errors import UsageError
from robaudit.training import WCIController, fixed_batch_wci
from robaudit.types import ThreatModel


def optimizer(*rates):
    return torch.optim.SGD([{"params": [torch.zeros(1)], "lr": rate} for rate in rates])


def test_the_rate_falls_once_and_is_then_divided_by_each_index_above_the_threshold():
    values = iter([150.0, 90.0, 200.0])
    control = WCIController(optimizer(0.1, 0.2), lambda: next(values), after=2, every=2)
    seen = []
    for _ in range(8):
        control.optimizer.step()
        control.step()
        seen.append((control.get_last_lr()[0], control.last_wci))
    assert [index for _, index in seen] == [None, None, None, 150.0, None, 90.0, None, 200.0]
    rates = [rate for rate, _ in seen]
    lowest = 0.01 / 150
    assert rates == pytest.approx([0.1, 0.01, 0.01, lowest, lowest, lowest, lowest, lowest / 200])
    assert control.get_last_lr()[1] == pytest.approx(2 * rates[-1])


def test_an_index_at_the_threshold_leaves_the_rate():
    control = WCIController(optimizer(1.0), lambda: 100.0, after=0)
    control.step()
    assert control.get_last_lr() == [1.0]
    assert control.last_wci == 100.0


def test_state_goes_on_in_another_controller():
    one = WCIController(optimizer(0.1), lambda: 120.0, after=1)
    for _ in range(3):
        one.step()
    two = WCIController(optimizer(0.1), lambda: 120.0, after=1)
    two.load_state_dict(one.state_dict())
    two.optimizer.load_state_dict(one.optimizer.state_dict())
    for control in (one, two):
        control.step()
    assert one.get_last_lr() == two.get_last_lr()
    assert one.last_epoch == two.last_epoch == 4


@pytest.mark.parametrize("wrong", [{"threshold": 0.5}, {"every": 0}, {"after": -1}, {"decay": 0}])
def test_settings_that_cannot_be_meant(wrong):
    with pytest.raises(UsageError, match="no WCI control"):
        WCIController(optimizer(0.1), lambda: 1.0, **wrong)


def test_the_measured_index_is_the_audits_and_leaves_the_model_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).train()
    x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 3
    threat = ThreatModel("linf", 0.1)
    measure = fixed_batch_wci(model, x, y, threat)
    first = measure()
    assert first == wci(model, pgd(model, x, y, threat, steps=10).x, y).value
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    with torch.no_grad():
        model[3].weight.mul_(2)
    assert measure() != first
