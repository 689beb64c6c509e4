"""The networks of the published checkpoints that the tests audit, as a user would write them."""

from collections import OrderedDict

from torch import nn


def cnn_a():
    return _small(padding=1, flat=2048)


def conv_small():
    return _small(padding=0, flat=1152)


def _small(padding, flat):
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, padding), nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2, padding), nn.ReLU(), nn.Flatten(),
        nn.Linear(flat, 100), nn.ReLU(), nn.Linear(100, 10),
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
