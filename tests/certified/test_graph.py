"""Graphs against the networks that they are read from."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from robaudit.certified.graph import graph_of
from robaudit.errors import NotCertifiableError

SHAPE = (3, 8, 8)


def seeded(make):
    """A network with random weights and statistics of batch norm that are not the initial ones."""
    torch.manual_seed(0)
    network = make()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.uniform_(module.weight, -1, 1)
                nn.init.uniform_(module.bias, -1, 1)
    return network


def dense(inputs, outputs=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))


NETWORKS = {
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.Dropout(), *dense(64)
    ),
    "residual": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), BasicBlock(4, 4), *dense(36)
    ),
}


def agree(network, shape=SHAPE, n=4):
    graph = graph_of(network, shape)
    double = copy.deepcopy(network).double().eval()
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        torch.testing.assert_close(graph(x), double(x), rtol=1e-9, atol=1e-9)
    assert graph.nodes[0].kind == "input"
    assert graph.nodes[0].shape == shape
    return graph


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_logits_are_the_networks(make):
    graph = agree(seeded(make))
    values = []
    x = torch.rand(2, *SHAPE).double()
    for node in graph.nodes:
        values.append(x if node.kind == "input" else node(*(values[i] for i in node.inputs)))
        assert values[-1].shape == (2, *node.shape)
        assert all(i < len(values) - 1 for i in node.inputs)


def test_network_is_left_as_it_was():
    network = seeded(NETWORKS["residual"]).train()
    before = copy.deepcopy(network.state_dict())
    graph_of(network, SHAPE)
    assert all(module.training for module in network.modules())
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_softmax_attention_is_refused_by_its_name():
    class Attention(nn.Module):
        def forward(self, x):
            x = x.flatten(2)
            return nn.functional.scaled_dot_product_attention(x, x, x).flatten(1)

    with pytest.raises(NotCertifiableError, match=r"^not certifiable: softmax attention$"):
        graph_of(Attention(), SHAPE)
