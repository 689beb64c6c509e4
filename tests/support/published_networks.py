"""The networks of the published checkpoints that the tests audit, as a user would write them."""

from collections import OrderedDict

import torch
from torch import nn


def cnn_a():
    return _small(padding=1, flat=2048)


def conv_small():
    return _small(padding=0, flat=1152)


def conv_sigmoid():
    """abc_sigmoid.pth, with cifar10."""
    return _small(padding=0, flat=1152, activation=nn.Sigmoid)


def mnist_cnn_a():
    """sdp_mnist_cnn_a_adv.model, without normalisation."""
    return _small(padding=1, flat=1568, channels=1)


def _small(padding, flat, activation=nn.ReLU, channels=3):
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, 2, padding), activation(),
        nn.Conv2d(16, 32, 4, 2, padding), activation(), nn.Flatten(),
        nn.Linear(flat, 100), activation(), nn.Linear(100, 10),
    )  # fmt: skip


def trades_small_cnn():
    features = OrderedDict(
        conv1=nn.Conv2d(1, 32, 3), relu1=nn.ReLU(), conv2=nn.Conv2d(32, 32, 3), relu2=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv3=nn.Conv2d(32, 64, 3), relu3=nn.ReLU(), conv4=nn.Conv2d(64, 64, 3), relu4=nn.ReLU(),
        pool2=nn.MaxPool2d(2), flatten=nn.Flatten(),
    )  # fmt: skip
    head = OrderedDict(
        fc1=nn.Linear(1024, 200), relu1=nn.ReLU(), drop=nn.Dropout(0.5),
        fc2=nn.Linear(200, 200), relu2=nn.ReLU(), fc3=nn.Linear(200, 10),
    )  # fmt: skip
    return nn.Sequential(
        OrderedDict(feature_extractor=nn.Sequential(features), classifier=nn.Sequential(head))
    )


class Residual(nn.Module):
    """``relu(f(x) + s(x))`` of VNN-COMP's ResNet-4B, without batch norm."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        changes = stride > 1 or inputs != outputs
        short = [nn.Conv2d(inputs, outputs, 1, stride)] if changes else []
        self.shortcut = nn.Sequential(*short)

    def forward(self, x):
        return (self.conv2(self.conv1(x).relu()) + self.shortcut(x)).relu()


class ResNet4B(nn.Module):
    """vnn_resnet4b.pth, with cifar10-moments."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 2, 1)
        self.layer1 = nn.Sequential(Residual(16, 32, 2), Residual(32, 32, 1))
        self.layer2 = nn.Sequential(Residual(32, 32, 2), Residual(32, 32, 1))
        self.linear1 = nn.Linear(512, 100)
        self.linear2 = nn.Linear(100, 10)

    def forward(self, x):
        maps = self.layer2(self.layer1(self.conv1(x).relu()))
        return self.linear2(self.linear1(maps.flatten(1)).relu())


class TwoPaths(nn.Module):
    """A block of mn-bab's residual networks."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.path_a = nn.Sequential(
            nn.Identity(), nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs)
        )
        self.path_b = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x):
        return self.path_a(x) + self.path_b(x)


def resnet_2b2():
    """mnbab_resnet_2b2_bn_sadv8.pth, with cifar10-moments."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Sequential(TwoPaths(16, 32), nn.ReLU()), nn.Sequential(TwoPaths(32, 64), nn.ReLU()),
        nn.Flatten(), nn.Linear(1024, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


class Wrapped(nn.Module):
    """COLT keeps each layer under its kind's name."""

    def __init__(self, **layer):
        super().__init__()
        ((self.kind, module),) = layer.items()
        self.add_module(self.kind, module)

    def forward(self, x):
        return getattr(self, self.kind)(x)


class Relaxed(nn.ReLU):
    """A ReLU with COLT's slopes of its relaxation, which the network itself does not use."""

    def __init__(self, *shape):
        super().__init__()
        self.deepz_lambda = nn.Parameter(torch.ones(shape))


class Colt(nn.Module):
    """colt_mnist01.pt, with mnist."""

    def __init__(self):
        super().__init__()
        layers = nn.Sequential(
            nn.Identity(), Wrapped(conv=nn.Conv2d(1, 32, 5, 2, 2)), Relaxed(32, 14, 14),
            Wrapped(conv=nn.Conv2d(32, 64, 4, 2, 1)), Relaxed(64, 7, 7), nn.Flatten(),
            Wrapped(linear=nn.Linear(3136, 100)), Relaxed(100), Wrapped(linear=nn.Linear(100, 10)),
        )  # fmt: skip
        self.blocks = nn.ModuleDict({"layers": layers})

    def forward(self, x):
        return self.blocks["layers"](x)


def smallnet():
    """run_smallnet/*.pth, with cifar10-moments."""
    layers = []
    for inputs, outputs, stride in ((3, 16, 1), (16, 32, 2), (32, 64, 2)):
        conv = nn.Conv2d(inputs, outputs, 3, stride, 1)
        layers += [conv, nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 10))
