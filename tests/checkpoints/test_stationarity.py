"""The loss is at rest in an input shift under the normalisation of training, and only there."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robaudit.checkpoints import load
from robaudit.checkpoints.normalization import NORMALIZATIONS, usual
from robaudit.checkpoints.stationarity import shift_t2
from robaudit.data import load_examples


@pytest.fixture(scope="module")
def train():
    return load_examples("digits", split="train")


def regression(x, y, normalization):
    """Softmax regression at its maximum likelihood, on normalised images."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    z = (x.double() - normalization.mean[0]) / normalization.std[0]
    step = torch.optim.LBFGS(network.parameters(), max_iter=400, line_search_fn="strong_wolfe")

    def loss():
        step.zero_grad()
        # The bias is not penalised, so that its gradient is zero at the optimum.
        value = F.cross_entropy(network(z), y) + 1e-3 * network[1].weight.square().sum()
        value.backward()
        return value

    step.step(loss)
    return network.float()


@pytest.mark.parametrize("name", ["mnist", "half"])
def test_at_the_optimum_the_shift_has_no_gradient(train, name):
    network = regression(train.x, train.y, NORMALIZATIONS[name])
    found = {
        n.name if n else "none": shift_t2(
            load(network, normalize=n.name if n else "none", device="cpu"), train
        )
        for n in usual(1)
    }
    assert found.pop(name) < 0.01
    assert min(found.values()) > 10.8  # chi-squared's 99.9 % point


def test_it_is_hotellings_statistic(train):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    images = train.x[:100].repeat(1, 3, 1, 1) * torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    sample = type(train)(images, train.y[:100], train.index[:100], "x", "test", "none")
    rows = []
    for image, label in zip(images, train.y, strict=False):
        shift = torch.zeros(3, 1, 1, requires_grad=True)
        F.cross_entropy(network((image + shift)[None]), label[None]).backward()
        rows.append(shift.grad[:, 0, 0].double().numpy())
    rows = np.array(rows)
    mean = rows.mean(0)
    expected = len(rows) * mean @ np.linalg.solve(np.cov(rows.T), mean)
    assert shift_t2(load(network, device="cpu"), sample) == pytest.approx(expected, rel=1e-3)


def test_a_loss_without_gradients_is_at_rest(train):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(network[1].weight)
    assert shift_t2(load(network, device="cpu"), train) == 0
