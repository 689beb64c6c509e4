"""Networks rescaled without changing their function."""

import copy

import torch
from torch import nn


def relu_network(biases=True, seed=0):
    """Convolutions, pooling and linear layers on ``(n, 1, 6, 6)`` images, float64."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=biases),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=biases),
        nn.ReLU(),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(4, 6, bias=biases),
        nn.ReLU(),
        nn.Linear(6, 3, bias=biases),
    ).double()
    with torch.no_grad():  # layers whose units are neither all on nor all off
        for parameter in model.parameters():
            parameter.copy_(1.2 * torch.rand(parameter.shape, dtype=torch.float64) - 0.4)
    return model.eval()


def layer_rescaled(model, factors=(3.0, 0.2, 4.0, 1 / 2.4)):
    """Layer k has ``factors[k]`` times its weight; biases go along, and the product is 1."""
    out, total = copy.deepcopy(model), 1.0
    layers = [m for m in out.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer, factor in zip(layers, factors, strict=True):
            total *= factor
            layer.weight.mul_(factor)
            if layer.bias is not None:
                layer.bias.mul_(total)
    assert abs(total - 1) < 1e-12
    return out


def neuron_rescaled(model, first, then, seed=3):
    """Each output of layer ``first`` times a factor of its own that layer ``then`` undoes."""
    out = copy.deepcopy(model)
    own, following = out.get_submodule(first), out.get_submodule(then)
    draw = torch.Generator().manual_seed(seed)
    factors = torch.exp(torch.randn(len(own.weight), generator=draw, dtype=own.weight.dtype))
    with torch.no_grad():
        own.weight.mul_(factors.view(-1, *[1] * (own.weight.dim() - 1)))
        if own.bias is not None:
            own.bias.mul_(factors)
        following.weight.div_(factors.view(1, -1, *[1] * (following.weight.dim() - 2)))
    return out


def batch_norm_rescaled(factor=7.0):
    """A network whose batch norm follows a convolution, and one with the convolution rescaled."""
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False),
        nn.BatchNorm2d(3, eps=0.0),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(27, 3),
    ).double()
    with torch.no_grad():
        model[1].running_mean.uniform_(-0.5, 0.5)
        model[1].running_var.uniform_(0.5, 2.0)
        model[1].weight.uniform_(0.5, 1.5)
        model[1].bias.uniform_(-0.5, 0.5)
        other = copy.deepcopy(model)
        other[0].weight.mul_(factor)
        other[1].running_mean.mul_(factor)
        other[1].running_var.mul_(factor**2)
    return model.eval(), other.eval()
