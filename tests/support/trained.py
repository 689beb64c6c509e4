"""A small network to train, with batch norm and dropout, for images of 4 x 4 in three classes."""

import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
        nn.Linear(48, 3),
    )  # fmt: skip
