"""A linear classifier of the digits, whose robust accuracy has a closed form."""

import torch
from torch import nn

from robaudit.data import load_examples


def nearest_mean():
    """The class of the nearest mean of training images: linear in the image."""
    digits = load_examples("digits", split="train", n=500)
    means = torch.stack([digits.x[digits.y == k].mean(0).flatten() for k in range(10)])
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    net[1].weight.data, net[1].bias.data = means, -means.square().sum(1) / 2
    return net.eval()


def worst_margins(net, x, y, eps):
    """Exact, in float64: the smallest margin within linf radius eps and the box, ``(n,)``."""
    weight, bias = net[-1].weight.detach().double(), net[-1].bias.detach().double()
    x = x.flatten(1).double()
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    margins = torch.full((len(x), 10), torch.inf, dtype=torch.float64)
    for other in range(10):
        w = weight[y] - weight[other]
        at = torch.where(w > 0, low, high)  # the corner where that class comes nearest
        margins[:, other] = (w * at).sum(1) + bias[y] - bias[other]
    margins[torch.arange(len(y)), y] = torch.inf
    return margins.amin(1)


DUAL_ORDERS = {"linf": 1, "l2": 2, "l1": torch.inf}


def distances(net, x, y, norm):
    """Exact, in float64: the distance to the nearest other class in a norm, without the box.

    ``min_j m_j / ||w_y - w_j||`` in the dual norm, ``m_j`` the margin against class ``j``; negative
    for what is misclassified.
    """
    weight, bias = net[-1].weight.detach().double(), net[-1].bias.detach().double()
    logits = x.flatten(1).double() @ weight.T + bias
    rows = torch.arange(len(y))
    margins = logits[rows, y][:, None] - logits
    lengths = torch.linalg.vector_norm(
        weight[y][:, None] - weight[None], ord=DUAL_ORDERS[norm], dim=2
    )
    found = margins / lengths.clamp_min(1e-300)
    found[rows, y] = torch.inf
    return found.amin(1)
