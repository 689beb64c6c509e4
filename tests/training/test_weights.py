"""AWP's perturbation, and SWA's average."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from robaudit.training import At, Awp, Method, Standard, Swa, averaged_state, moved_weights
from robaudit.types import ThreatModel


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
    )


@pytest.fixture
def task():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(12, 1, 4, 4, generator=generator), torch.arange(12) % 3


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one) and len(one) == len(other)


def test_awp_moves_each_weight_by_gamma_times_its_length_along_the_gradient(task):
    model, (x, y) = net().double(), task
    x = x.double()
    before = state(model)
    found = Awp(0.01).adversary(model, lambda: Standard()(model, x, y))
    assert same(before, state(model))  # running statistics as well
    assert set(found) == {"0.weight", "4.weight"}
    own = dict(model.named_parameters())
    gradients = torch.autograd.grad(Standard()(model, x, y), [own[name] for name in found])
    for (name, v), gradient in zip(found.items(), gradients, strict=True):
        assert float(v.norm()) == pytest.approx(0.01 * float(own[name].detach().norm()), rel=1e-12)
        cosine = torch.cosine_similarity(v.flatten(), gradient.flatten(), dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-12)


def test_a_weight_without_gradient_or_length_does_not_move(task):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.fill_(-1)  # dead units: no gradient reaches the first layer
    found = Awp().adversary(model, lambda: Standard()(model, *task))
    assert not found["1.weight"].any()  # and not NaN


class _NoReads(TorchDispatchMode):
    """Refuses what makes a program wait for its device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.overloadpacket is not torch.ops.aten._local_scalar_dense
        return function(*args, **kwargs or {})


def test_awp_reads_nothing_from_the_device(task):
    with _NoReads():
        model = net()
        assert len(Awp().adversary(model, lambda: Standard()(model, *task))) == 2
        with pytest.raises(AssertionError):
            bool(task[0].any())


@pytest.mark.parametrize("fails", [False, True])
def test_moved_weights_come_back_bit_for_bit(fails):
    model = net()
    before = state(model)
    nu = {"0.weight": torch.full((3, 1, 3, 3), 0.1), "4.bias": torch.full((3,), 1e8)}
    try:
        with moved_weights(model, nu):
            assert float(model[0].weight.detach().sum()) == pytest.approx(
                float(before["0.weight"].sum()) + 2.7, rel=1e-4
            )
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert same(before, state(model))


def test_a_step_with_awp_is_the_gradient_at_the_moved_weights(task):
    model, (x, y) = net().double().eval(), task
    x, objective = x.double(), At(ThreatModel("linf", 0.05), steps=2)
    before = state(model)
    Method(objective, awp=Awp(0.3)).descend(model, x, y, torch.Generator().manual_seed(1))
    assert same(before, state(model))
    moved = objective.examples(model, x, y, torch.Generator().manual_seed(1))
    other = net().double().eval()
    found = Awp(0.3).adversary(model, lambda: objective.loss(model, x, moved, y))
    with torch.no_grad():
        for name, v in found.items():
            other.get_parameter(name).add_(v)
    gradients = torch.autograd.grad(objective.loss(other, x, moved, y), list(other.parameters()))
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_awp_waits_for_its_epoch(task):
    model, grads = net().eval(), []
    for method in (Method(Standard()), Method(Standard(), awp=Awp(0.5, after=3))):
        model.zero_grad()
        method.descend(model, *task, epoch=3)
        grads.append(model[4].weight.grad.clone())
    assert torch.equal(*grads)
    model.zero_grad()
    Method(Standard(), awp=Awp(0.5, after=3)).descend(model, *task, epoch=4)
    assert not torch.equal(model[4].weight.grad, grads[0])


def test_the_average_is_the_papers_recursion():
    swa, average, expected = Swa(0.9), {}, None
    for seed in range(4):
        model = net(seed)
        swa.update(average, model)
        own = {name: p.detach() for name, p in model.named_parameters()}
        expected = own if expected is None else {
            name: 0.9 * expected[name] + 0.1 * value for name, value in own.items()
        }  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(average[name], value)


def test_the_averaged_network_gets_statistics_of_its_own_and_the_model_keeps_its(task):
    model, (x, _) = net().train(), task
    model[1].momentum = 0.3
    model(x)
    before, average = state(model), {}
    Swa().update(average, net(5))
    found = averaged_state(model, average, x, batch_size=12)
    assert same(before, state(model))
    assert model.training
    assert model[1].momentum == 0.3
    fresh = net(5)
    with torch.no_grad():
        maps = fresh[0](x)
    assert torch.equal(found["0.weight"], fresh[0].weight)
    torch.testing.assert_close(found["1.running_mean"], maps.mean((0, 2, 3)))
    torch.testing.assert_close(found["1.running_var"], maps.var((0, 2, 3)))
