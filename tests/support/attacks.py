"""One description of every attack, for the tests that hold for all of them."""

import torch
from torch import nn

from robaudit import attacks
from robaudit.types import ThreatModel

THREATS = [ThreatModel("linf", 0.08), ThreatModel("l2", 0.4), ThreatModel("l1", 1.5)]

ATTACKS = {
    "apgd-ce": lambda *a, **k: attacks.apgd(*a, steps=15, **k),
    "apgd-dlr": lambda *a, **k: attacks.apgd(*a, loss="dlr", steps=12, restarts=2, **k),
    "apgd-t": lambda *a, **k: attacks.apgd(*a, loss="dlr", targets=3, steps=12, **k),
    "fab-t": lambda *a, **k: attacks.fab(*a, targets=3, steps=12, mode="accuracy", **k),
    "fab": lambda *a, **k: attacks.fab(*a, targets=0, steps=8, restarts=2, **k),
    "square": lambda *a, **k: attacks.square(*a, queries=150, **k),
    "fast": lambda *a, **k: attacks.fast(*a, **k),
}


def network(seed=0, classes=5, pixels=8):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(8 * (pixels // 2) ** 2, classes),
    ).eval()  # fmt: skip


def examples(model, n=80, pixels=8, seed=1):
    """Images with the labels that the model gives them, but for every eighth."""
    torch.manual_seed(seed)
    x = torch.rand(n, 1, pixels, pixels)
    with torch.no_grad():
        logits = model(x)
        y = logits.argmax(1)
        y[::8] = (y[::8] + 1) % logits.shape[1]
    return x, y


def distance(adv, x, norm):
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm((adv - x).flatten(1).double(), ord=order, dim=1)
