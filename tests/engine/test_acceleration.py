"""Folded and reordered networks compute what the network computes, or are not used."""

import copy

import pytest
import torch
from torch import nn

from robaudit.engine import accelerate
from robaudit.engine.folding import fold_batch_norm


def warm(network, shape=(3, 8, 8)):
    """Norms with statistics, scales and shifts of their own."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(16, *shape))
    return network.eval()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.second, self.pre = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.head, self.tail = nn.Linear(16, 5), nn.BatchNorm1d(5, affine=False)

    def forward(self, x):
        h = self.norm(self.first(x)).relu()
        h = h + self.second(self.pre(h).relu())
        return self.tail(self.head(h.mean((2, 3))))


class PreActivation(nn.Module):
    """Outputs of ``stem`` and ``second`` go past their norms as well."""

    def __init__(self):
        super().__init__()
        self.stem, self.pre = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.first, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x):
        h = self.stem(x)
        inner = self.second(self.norm(self.first(self.pre(h).relu())).relu())
        past = inner.view(len(x), -1).mean(1)
        h = h + inner
        return self.last(inner).mean((2, 3)) + h.mean((2, 3)) + past[:, None]


class UsedTwice(nn.Module):
    """The layer's raw output goes past the norm as well, but not where few images are given."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)

    def forward(self, x):
        h = self.conv(x)
        return (self.norm(h) + (h if len(x) > 2 else 0)).mean((2, 3))


class Overwritten(nn.Module):
    """ReLU changes the layer's output in place before the norm sees the same tensor."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)

    def forward(self, x):
        return self.norm(self.conv(x).relu_()).mean((2, 3))


class CalledTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(self.norm(self.conv(x)).relu())).mean((2, 3))


def agree(network, forward, shape=(3, 8, 8)):
    torch.manual_seed(1)
    x = torch.rand(5, *shape, dtype=next(network.parameters()).dtype)
    with torch.no_grad():
        torch.testing.assert_close(forward(x), network(x), rtol=1e-9, atol=1e-9)


FOLDABLE = {
    "residual": (Residual, 2),
    "pre-activation": (PreActivation, 1),
    "sequential": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True),
            nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8, affine=False),
            nn.Flatten(), nn.Linear(128, 4), nn.BatchNorm1d(4),
        ), 3,
    ),
    "one dimension": (
        lambda: nn.Sequential(
            nn.Flatten(2), nn.Conv1d(3, 4, 5), nn.BatchNorm1d(4), nn.Flatten()
        ), 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDABLE)
def test_folding_changes_nothing_but_the_number_of_norms(name):
    make, folds = FOLDABLE[name]
    network = warm(make()).double()
    before = copy.deepcopy(network.state_dict())
    found = fold_batch_norm(network, torch.rand(2, 3, 8, 8, dtype=torch.float64))
    folded = found.network
    agree(network, folded)
    gone = sum(isinstance(module, nn.Identity) for module in folded.modules())
    assert gone == len(found.affine) == folds
    for name, (scale, shift) in found.affine.items():
        own, its = network.get_submodule(name), folded.get_submodule(name)
        bias = 0 if own.bias is None else own.bias
        wide = scale.reshape(-1, *[1] * (own.weight.dim() - 1))
        torch.testing.assert_close(its.weight, own.weight * wide)
        torch.testing.assert_close(its.bias, bias * scale + shift)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def shared():
    first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    return nn.Sequential(first, nn.BatchNorm2d(3), second, nn.BatchNorm2d(3), nn.Flatten())


def weight_norm():
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    return nn.Sequential(layer, nn.BatchNorm2d(4), nn.Flatten())


@pytest.mark.parametrize(
    "make",
    [
        Overwritten, CalledTwice, shared, weight_norm,
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)),
    ],
)  # fmt: skip
def test_what_is_no_layer_with_its_norm_is_left_alone(make):
    assert fold_batch_norm(warm(make()), torch.rand(2, 3, 8, 8)) is None


def test_a_fold_that_is_wrong_is_found_out_and_dropped():
    network = warm(UsedTwice())
    assert fold_batch_norm(network, torch.rand(2, 3, 8, 8)) is not None
    found = accelerate(network, (3, 8, 8))
    assert "batch norm folded" not in found.used
    assert "not folded: its logits differ" in found.notes[0]
    torch.manual_seed(1)
    x = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(found.forward(x), network(x))


class ReadsItsNorm(Residual):
    def forward(self, x):
        return super().forward(x) * self.norm.weight.mean()


class OneOrder(Residual):
    """Takes no images in channels-last order."""

    def forward(self, x):
        return super().forward(x.view(len(x), -1).view(x.shape))


@pytest.mark.parametrize(
    ("make", "used", "note"),
    [
        (Residual, ("batch norm folded", "channels last"), None),
        (ReadsItsNorm, ("channels last",), "then raises AttributeError"),
        (OneOrder, ("batch norm folded",), "channels are not last: the network then raises"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), (), None),
        (lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten()), (), None),  # all work on three
    ],
)
def test_what_does_not_work_is_noted_and_left_out(make, used, note):
    network = warm(make())
    found = accelerate(network, (3, 8, 8))
    assert found.used == used
    assert (note in found.notes[0]) if note else found.notes == ()
    torch.manual_seed(1)
    x = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(found.forward(x), network(x), rtol=1e-4, atol=1e-5)


def test_the_network_is_left_as_it_was():
    network = warm(Residual()).train()
    wanted = [p.requires_grad for p in network.parameters()]
    before = copy.deepcopy(network.state_dict())
    accelerate(network, (3, 8, 8))
    assert network.training
    assert [p.requires_grad for p in network.parameters()] == wanted
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_bf16_is_near_and_a_network_that_it_ruins_goes_without():
    network = warm(Residual())
    found = accelerate(network, (3, 8, 8), "bf16")
    assert found.used[-1] == "bf16"
    torch.manual_seed(1)
    x = torch.rand(64, 3, 8, 8)
    with torch.no_grad():
        logits, rounded = network(x), found.forward(x)
    assert rounded.dtype == torch.float32
    assert 1e-5 < float((rounded - logits).abs().max() / logits.abs().max()) < 0.05

    class Delicate(Residual):
        """What is left of a large number minus another large one."""

        def forward(self, x):
            h = self.first(x).mean((2, 3))
            return self.head(self.head.weight.new_tensor(1e4) * (h - h.round(decimals=2)))

    ruined = accelerate(warm(Delicate()), (3, 8, 8), "bf16")
    assert "bf16" not in ruined.used
    assert any("bf16 is not used" in note for note in ruined.notes)
