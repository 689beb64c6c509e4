"""The plain copy of a network is the same function, of the same modules, with ordinary weights."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from robaudit.engine import effective, effective_notes, idle_parameters, kept_entries
from robaudit.errors import NotMeasuredError


class Masked(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.register_buffer("mask", (torch.rand(shape) < 0.5).float())

    def forward(self, weight):
        return weight * self.mask


class Drawn(nn.Module):
    def forward(self, weight):
        return weight + torch.randn_like(weight)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip


def weight_normed(model):
    parametrizations.weight_norm(model[0])
    parametrizations.weight_norm(model[3], dim=1)


def old_weight_normed(model):
    nn.utils.weight_norm(model[0])
    nn.utils.weight_norm(model[3])


def spectral_normed(model):
    parametrizations.spectral_norm(model[0])
    parametrizations.spectral_norm(model[5])


def old_spectral_normed(model):
    nn.utils.spectral_norm(model[0])
    nn.utils.spectral_norm(model[5])
    model(torch.rand(2, 1, 4, 4))


def orthogonal(model):
    parametrizations.orthogonal(model[3])


def twice(model):
    parametrizations.orthogonal(model[3])
    parametrizations.spectral_norm(model[3])
    parametrize.register_parametrization(model[3], "bias", nn.Tanh())


def pruned(model):
    prune.l1_unstructured(model[3], "weight", 0.5)
    prune.random_structured(model[0], "weight", 2, dim=0)
    prune.l1_unstructured(model[3], "weight", 0.3)
    prune.l1_unstructured(model[3], "bias", 2)


def pruned_weight_norm(model):
    nn.utils.weight_norm(model[3])
    prune.l1_unstructured(model[3], "weight_v", 0.5)


def pruned_original(model):
    parametrizations.weight_norm(model[3])
    prune.l1_unstructured(model[3].parametrizations.weight, "original1", 0.5)


def masked(model):
    parametrize.register_parametrization(model[3], "weight", Masked((8, 64)))


WAYS = [
    weight_normed, old_weight_normed, spectral_normed, old_spectral_normed, orthogonal, twice,
    pruned, pruned_weight_norm, pruned_original, masked,
]  # fmt: skip


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("change", WAYS)
def test_the_copy_is_the_same_function_with_ordinary_weights(change, frozen):
    model = net()
    names = [name for name, _ in model.named_parameters()]
    modules = [(name, type(module)) for name, module in model.named_modules()]
    change(model)
    model.eval().requires_grad_(not frozen)
    x = torch.rand(5, 1, 4, 4)
    state = copy.deepcopy(model.state_dict())
    logits = model(x)
    plain = effective(model, x)
    torch.testing.assert_close(plain(x), logits, rtol=1e-6, atol=1e-6)
    assert [name for name, _ in plain.named_parameters()] == names
    assert [(name, type(module)) for name, module in plain.named_modules()] == modules
    assert all(p.is_leaf and p.requires_grad is not frozen for p in plain.parameters())
    assert list(plain.state_dict()) == list(net().state_dict())
    # The network itself is what it was, and still works.
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())
    torch.testing.assert_close(model(x), logits)
    assert len(effective_notes(model, plain)) >= 1
    # A plain network stays itself.
    assert effective(plain, x) is plain
    assert effective_notes(plain, plain) == ()


@pytest.mark.parametrize(
    ("change", "name"),
    [(pruned, "3.weight"), (pruned_weight_norm, "3.weight"), (pruned_original, "3.weight"),
     (masked, "3.weight"), (pruned, "0.weight"), (pruned, "3.bias")],
)  # fmt: skip
def test_pruned_entries_are_known(change, name):
    model = net()
    change(model)
    plain = effective(model)
    kept = kept_entries(plain)[name]
    assert torch.equal(kept, plain.get_parameter(name) != 0)
    assert any("stay zero" in note for note in effective_notes(model, plain))


def test_an_unpruned_entry_that_is_zero_is_kept():
    model = net()
    with torch.no_grad():
        model[3].weight[0, :5] = 0
    prune.random_unstructured(model[3], "weight", 0.5)
    assert torch.equal(kept_entries(effective(model))["3.weight"], model[3].weight_mask.bool())
    prune.remove(model[3], "weight")  # made permanent: ordinary zeros
    assert effective(model) is model


def test_nothing_is_pruned_in_a_weight_that_is_zero_for_now():
    model = net()
    parametrizations.weight_norm(model[3])
    with torch.no_grad():
        model[3].parametrizations.weight.original1[:, :3] = 0
    assert kept_entries(effective(model)) == {}


def test_a_shared_parametrised_weight_stays_shared():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    model[3].weight = model[1].weight
    for layer in (model[1], model[3]):
        parametrize.register_parametrization(layer, "weight", nn.Tanh())
    plain = effective(model)
    assert plain[1].weight is plain[3].weight
    # With another use of what is behind it, which the copy must not overwrite.
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
    model[3].weight = model[1].weight
    parametrize.register_parametrization(model[1], "weight", nn.Tanh())
    x = torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(effective(model, x)(x), model(x))


def test_what_cannot_be_made_plain_is_refused():
    random = net()
    parametrize.register_parametrization(random[3], "weight", Drawn())
    with pytest.raises(NotMeasuredError, match="draws at random"):
        effective(random, torch.rand(2, 1, 4, 4))

    class Reaching(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = parametrizations.weight_norm(nn.Linear(16, 3))

        def forward(self, x):
            return self.lin(x.flatten(1)) * self.lin.parametrizations.weight.original0.sum()

    with pytest.raises(NotMeasuredError, match="cannot be made plain"):
        effective(Reaching(), torch.rand(2, 1, 4, 4))


def test_a_copy_that_calls_the_original_is_refused():
    model = net()
    weight_normed(model)
    layers = list(model)

    def forward(x):
        for layer in layers:
            x = layer(x)
        return x

    model.forward = forward
    with pytest.raises(NotMeasuredError, match="still calls"):
        effective(model, torch.rand(2, 1, 4, 4))


class Idle(nn.Module):
    """Has tensors that no pass uses, and one whose gradient does not arrive."""

    def __init__(self):
        super().__init__()
        self.used = nn.Linear(16, 3)
        self.never = nn.Linear(16, 16)
        self.loose = nn.Parameter(torch.ones(5))
        self.hidden = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.used(x.flatten(1)) * self.hidden.detach()


def test_idle_tensors_are_those_that_change_nothing():
    assert idle_parameters(Idle().eval(), torch.rand(2, 1, 4, 4)) == (
        "loose", "never.weight", "never.bias",
    )  # fmt: skip
    dead = net().eval()
    with torch.no_grad():  # called, though nothing gets through
        dead[3].bias.fill_(-1e3)
    assert idle_parameters(dead, torch.rand(2, 1, 4, 4)) == ()


def test_a_parameter_that_a_function_takes_and_ignores_is_idle():
    """The graph leads to it, and no gradient does."""

    class Ignoring(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient, None

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    model.ignored = nn.Parameter(torch.ones(3))
    model.forward = lambda x: Ignoring.apply(nn.Sequential.forward(model, x), model.ignored)
    assert idle_parameters(model, torch.rand(2, 1, 4, 4)) == ("ignored",)
