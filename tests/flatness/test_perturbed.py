"""A network at many weights against torch's own functional call, and the model left as it was."""

import pytest
import torch
from support.console import SAMPLES
from torch import nn
from torch.func import functional_call

from robaudit.checkpoints import load
from robaudit.flatness import average, worst
from robaudit.flatness.perturbed import Perturbed
from robaudit.flatness.weights import draw_for, movable_weights, on_sphere
from robaudit.types import ThreatModel

THREAT = ThreatModel("linf", 0.1)


class Residual(nn.Module):
    """Batch norms that fold, one that does not, a bias, and a weight that two layers share."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(8)
        self.bn3 = nn.BatchNorm2d(8)
        self.tied = nn.Linear(8, 8, bias=False)
        self.again = nn.Linear(8, 8, bias=False)
        self.again.weight = self.tied.weight
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(x + self.bn2(self.conv2(x)))
        x = self.bn3(x).mean((2, 3))
        return self.head(torch.relu(self.again(torch.relu(self.tied(x)))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    found = Residual()
    with torch.no_grad():
        for norm in (found.bn1, found.bn2, found.bn3):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.weight.normal_()
            norm.bias.normal_()
    return found.eval().requires_grad_(False)


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(20, 1, 6, 6), torch.randint(3, (20,))


def test_it_computes_what_the_moved_network_does(model, batch):
    weights = movable_weights(model)
    network = Perturbed(model, weights, (1, 6, 6))
    assert network.used == ("batch norm folded", "channels last")
    for j in range(3):
        nu = on_sphere(weights, 0.5, draw_for(0, "t", j))
        moved = {name: weight + nu[name] for name, weight in weights.items()}
        want = functional_call(model, moved, (batch[0],))
        torch.testing.assert_close(network.at(nu)(batch[0]), want, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(network.logits(moved, batch[0]), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.at({})(batch[0]), model(batch[0]), rtol=1e-5, atol=1e-5)


def test_its_gradients_are_those_of_the_moved_network(model, batch):
    x = batch[0]
    weights = movable_weights(model)
    network = Perturbed(model, weights, (1, 6, 6))

    def slopes(logits):
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        image = x.clone().requires_grad_()
        value = logits(leaves, image).square().sum()
        return torch.autograd.grad(value, [image, *leaves.values()])

    ours = slopes(network.logits)
    theirs = slopes(lambda leaves, image: functional_call(model, leaves, (image,)))
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-4  # rounding of float32 in another order


def test_a_network_that_cannot_be_copied_is_run_as_it_stands(model, batch):
    class Stubborn(Residual):
        def __deepcopy__(self, memo):
            raise TypeError("not to be copied")

    stubborn = Stubborn().eval()
    stubborn.load_state_dict(model.state_dict())
    network = Perturbed(stubborn, movable_weights(stubborn), (1, 6, 6))
    assert network.used == ()
    with torch.no_grad():
        torch.testing.assert_close(network.at({})(batch[0]), model(batch[0]))


@pytest.mark.parametrize("measure", [average, worst])
def test_a_network_that_shares_weights_with_another_leaves_it_alone(measure, model, batch):
    other = Residual().eval()
    other.conv1.weight = model.conv1.weight
    before, logits = model.conv1.weight.clone(), other(batch[0])
    alone = Residual().eval()
    alone.load_state_dict(model.state_dict())
    found = measure(model, *batch, THREAT, steps=2)
    assert torch.equal(other.conv1.weight, before)
    assert torch.equal(other(batch[0]), logits)
    assert found.value == measure(alone, *batch, THREAT, steps=2).value


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("measure", [average, worst])
def test_an_interrupt_leaves_the_model_bit_for_bit(measure, at, model, batch):
    model.requires_grad_(True).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def stop(done, total):
        if done > at * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(model, *batch, THREAT, steps=3, progress=stop)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_transformer_runs_on_weights_that_are_no_parameters():
    """As every perturbed network does, its position embedding and class token included."""
    network = load(SAMPLES / "smooth.safetensors", device="cpu").network.eval()
    x = torch.rand(2, 1, 8, 8)
    weights = {name: weight.detach() + 0 for name, weight in network.named_parameters()}
    assert torch.equal(functional_call(network, weights, x), network(x))
