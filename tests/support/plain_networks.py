"""Networks as people write them, whose keys do not show what lies between their layers."""

import torch
from torch import nn
from torch.nn import functional as F

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)
ACTIVATIONS = {
    "relu": F.relu,
    "leaky": F.leaky_relu,
    "leaky0.1": lambda x: F.leaky_relu(x, 0.1),
    "leaky0.2": lambda x: F.leaky_relu(x, 0.2),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
}


class Named(nn.Module):
    """Layers by name, and a function that runs them."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def tutorial(act=F.relu, pool=F.max_pool2d):
    """pytorch.org, "Training a classifier"."""

    def forward(net, x):
        x = pool(act(net.conv1(x)), 2)
        x = pool(act(net.conv2(x)), 2).flatten(1)
        return net.fc3(act(net.fc2(act(net.fc1(x)))))

    return Named(
        forward, conv1=nn.Conv2d(3, 6, 5), conv2=nn.Conv2d(6, 16, 5), fc1=nn.Linear(400, 120),
        fc2=nn.Linear(120, 84), fc3=nn.Linear(84, 10),
    )  # fmt: skip


def mnist_example():
    """pytorch/examples, mnist."""

    def forward(net, x):
        x = F.max_pool2d(F.relu(net.conv2(F.relu(net.conv1(x)))), 2)
        return net.fc2(F.relu(net.fc1(x.flatten(1))))

    return Named(
        forward, conv1=nn.Conv2d(1, 32, 3), conv2=nn.Conv2d(32, 64, 3), fc1=nn.Linear(9216, 128),
        fc2=nn.Linear(128, 10),
    )  # fmt: skip


def advertorch_lenet():
    def forward(net, x):
        x = F.max_pool2d(F.relu(net.conv1(x)), 2)
        x = F.max_pool2d(F.relu(net.conv2(x)), 2)
        return net.linear2(F.relu(net.linear1(x.flatten(1))))

    return Named(
        forward, conv1=nn.Conv2d(1, 32, 3, 1, 1), conv2=nn.Conv2d(32, 64, 3, 1, 1),
        linear1=nn.Linear(3136, 200), linear2=nn.Linear(200, 10),
    )  # fmt: skip


def auto_lirpa(act=F.relu):
    """Its cnn_4layer."""

    def forward(net, x):
        x = act(net.conv2(act(net.conv1(x)))).flatten(1)
        return net.fc2(act(net.fc1(x)))

    return Named(
        forward, conv1=nn.Conv2d(3, 8, 4, 2, 1), conv2=nn.Conv2d(8, 16, 4, 2, 1),
        fc1=nn.Linear(1024, 128), fc2=nn.Linear(128, 10),
    )  # fmt: skip


def auto_lirpa_b():
    """Its cnn_4layer_b, which pads in front."""

    def forward(net, x):
        x = F.relu(net.conv1(F.pad(x, (1, 2, 1, 2))))
        return net.fc(F.relu(net.linear(F.relu(net.conv2(x)).flatten(1))))

    return Named(
        forward, conv1=nn.Conv2d(3, 32, 5, 2), conv2=nn.Conv2d(32, 128, 4, 2, 1),
        linear=nn.Linear(8192, 250), fc=nn.Linear(250, 10),
    )  # fmt: skip


def mlp(act=F.relu):
    def forward(net, x):
        return net.fc3(act(net.fc2(act(net.fc1(x.flatten(1))))))

    layers = {"fc1": nn.Linear(784, 64), "fc2": nn.Linear(64, 32), "fc3": nn.Linear(32, 10)}
    return Named(forward, **layers)


def listed_mlp():
    def forward(net, x):
        x = x.flatten(1)
        for layer in net.layers[:-1]:
            x = F.relu(layer(x))
        return net.layers[-1](x)

    return Named(
        forward, layers=nn.ModuleList([nn.Linear(784, 64), nn.Linear(64, 32), nn.Linear(32, 10)])
    )


def yunjey():
    """A convolution, its norm, its activation and its pool in a Sequential each."""

    def forward(net, x):
        return net.fc(net.layer2(net.layer1(x)).flatten(1))

    def layer(i, o):
        conv = nn.Conv2d(i, o, 5, 1, 2)
        return nn.Sequential(conv, nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2))

    return Named(forward, layer1=layer(1, 16), layer2=layer(16, 32), fc=nn.Linear(1568, 10))


def norms_last():
    """Norms that are registered behind all convolutions, one before a pool, one behind the fc."""

    def forward(net, x):
        x = F.max_pool2d(F.relu(net.bn1(net.conv1(x))), 2)
        x = F.max_pool2d(F.relu(net.bn2(net.conv2(x))), 2).flatten(1)
        return net.fc2(F.relu(net.bn3(net.fc1(x))))

    return Named(
        forward, conv1=nn.Conv2d(3, 8, 3, 1, 1), conv2=nn.Conv2d(8, 8, 3, 1, 1),
        fc1=nn.Linear(512, 24), fc2=nn.Linear(24, 10), bn1=nn.BatchNorm2d(8),
        bn2=nn.BatchNorm2d(8), bn3=nn.BatchNorm1d(24),
    )  # fmt: skip


def acted_before_norm():
    def forward(net, x):
        x = net.bn1(F.relu(net.conv1(x)))
        x = net.bn2(F.relu(net.conv2(x)))
        return net.fc(x.flatten(1))

    return Named(
        forward, conv1=nn.Conv2d(3, 8, 4, 2, 1), bn1=nn.BatchNorm2d(8),
        conv2=nn.Conv2d(8, 16, 4, 2, 1), bn2=nn.BatchNorm2d(16), fc=nn.Linear(1024, 10),
    )  # fmt: skip


def two_parts():
    def forward(net, x):
        return net.classifier(net.features(x).flatten(1))

    features = nn.Sequential(
        nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(), nn.AvgPool2d(2),
    )  # fmt: skip
    classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(1024, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10)
    )
    return Named(forward, features=features, classifier=classifier)


class Block(nn.Module):
    """That of the ResNets of VNN-COMP 2021 and 2022."""

    def __init__(self, i, o, stride, norm, kernel=3):
        super().__init__()
        pads = {3: (1, 1), 2: (1, 0), 1: (0, 0)}[kernel]
        self.conv1 = nn.Conv2d(i, o, kernel, stride, pads[0], bias=not norm)
        self.conv2 = nn.Conv2d(o, o, kernel, 1, pads[1], bias=not norm)
        if norm:
            self.bn1, self.bn2 = nn.BatchNorm2d(o), nn.BatchNorm2d(o)
        self.norm = norm
        way = [nn.Conv2d(i, o, 1, stride, bias=not norm)] + [nn.BatchNorm2d(o)] * norm
        self.shortcut = nn.Sequential(*(way if stride != 1 or i != o else []))

    def forward(self, x):
        if self.norm:
            inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        else:
            inner = self.conv2(F.relu(self.conv1(x)))
        return F.relu(inner + self.shortcut(x))


def resnet(blocks, head, norm=False, stem_stride=2, kernel=3, pool=0):
    """2B: two blocks; 4B: four."""

    def forward(net, x):
        x = net.conv1(x)
        x = F.relu(net.bn1(x) if norm else x)
        for stage in range(len(blocks)):
            x = net.get_submodule(f"layer{stage + 1}")(x)
        x = (F.avg_pool2d(x, pool) if pool else x).flatten(1)
        return net.linear(x) if len(head) == 1 else net.linear2(F.relu(net.linear1(x)))

    layers = {"conv1": nn.Conv2d(3, blocks[0][0][0], 3, stem_stride, 1, bias=not norm)}
    if norm:
        layers["bn1"] = nn.BatchNorm2d(blocks[0][0][0])
    for stage, stage_blocks in enumerate(blocks):
        made = [Block(i, o, stride, norm, kernel) for i, o, stride in stage_blocks]
        layers[f"layer{stage + 1}"] = nn.Sequential(*made)
    widths = [*head, 10]
    names = ["linear"] if len(head) == 1 else ["linear1", "linear2"]
    for name, i, o in zip(names, widths, widths[1:], strict=False):
        layers[name] = nn.Linear(i, o)
    return Named(forward, **layers)


TWO_B = [[(8, 16, 2), (16, 16, 1)]]
FOUR_B = [[(16, 32, 2), (32, 32, 1)], [(32, 32, 2), (32, 32, 1)]]


class Path(nn.Module):
    """That of mn-bab."""

    def __init__(self, i, o, stride, norm):
        super().__init__()

        def conv(*args):
            made = nn.Conv2d(*args, bias=not norm)
            return [made, nn.BatchNorm2d(made.out_channels)] if norm else [made]

        self.path_b = nn.Sequential(*conv(i, o, 3, stride, 1), nn.ReLU(), *conv(o, o, 3, 1, 1))
        same = stride == 1 and i == o
        self.path_a = nn.Sequential(nn.Identity(), *([] if same else conv(i, o, 1, stride, 0)))

    def forward(self, x):
        return self.path_a(x) + self.path_b(x)


def mn_bab(norm):
    stem = nn.Conv2d(3, 16, 3, 2, 1, bias=not norm)
    return nn.Sequential(
        stem, *([nn.BatchNorm2d(16)] if norm else []), nn.ReLU(),
        nn.Sequential(Path(16, 32, 2, norm), nn.ReLU()),
        nn.Sequential(Path(32, 32, 1, norm), nn.ReLU()), nn.Flatten(), nn.Linear(2048, 100),
        nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip


class Relaxed(nn.Module):
    """COLT's activation, which remembers its relaxation's slopes."""

    def __init__(self, *shape):
        super().__init__()
        self.deepz_lambda = nn.Parameter(torch.ones(shape))

    def forward(self, x):
        return F.relu(x)


class Holder(nn.Module):
    def __init__(self, **layer):
        super().__init__()
        ((self.name, made),) = layer.items()
        self.add_module(self.name, made)

    def forward(self, x):
        return self.get_submodule(self.name)(x)


def colt():
    net = Named(lambda net, x: net.blocks.layers(x), blocks=nn.Module())
    net.blocks.layers = nn.Sequential(
        nn.Identity(), Holder(conv=nn.Conv2d(1, 32, 5, 2, 2)), Relaxed(32, 14, 14),
        Holder(conv=nn.Conv2d(32, 64, 4, 2, 1)), Relaxed(64, 7, 7), nn.Flatten(),
        Holder(linear=nn.Linear(3136, 100)), Relaxed(100), Holder(linear=nn.Linear(100, 10)),
    )  # fmt: skip
    return net


NETWORKS = {
    "tutorial": (tutorial, CIFAR),
    "tutorial, averaging": (lambda: tutorial(pool=F.avg_pool2d), CIFAR),
    "mnist example": (mnist_example, MNIST),
    "advertorch LeNet5": (advertorch_lenet, MNIST),
    "auto_LiRPA": (auto_lirpa, CIFAR),
    "auto_LiRPA b": (auto_lirpa_b, CIFAR),
    "mlp": (mlp, MNIST),
    "list": (listed_mlp, MNIST),
    "a Sequential a layer": (yunjey, MNIST),
    "norms registered last": (norms_last, CIFAR),
    "activation before norm": (acted_before_norm, CIFAR),
    "two parts": (two_parts, CIFAR),
    "2B": (lambda: resnet(TWO_B, (1024, 100)), CIFAR),
    "2B with batch norm": (lambda: resnet(TWO_B, (1024, 100), norm=True), CIFAR),
    "2B, kernel 1": (lambda: resnet(TWO_B, (1024, 100), kernel=1), CIFAR),
    "2B, kernel 2": (lambda: resnet([[(8, 16, 2)]], (1024, 100), kernel=2), CIFAR),
    "4B": (lambda: resnet(FOUR_B, (512, 100)), CIFAR),
    "4B, averaging": (lambda: resnet(FOUR_B, (32,), stem_stride=1, pool=8, norm=True), CIFAR),
    "mn-bab": (lambda: mn_bab(False), CIFAR),
    "mn-bab with batch norm": (lambda: mn_bab(True), CIFAR),
    "COLT": (colt, MNIST),
}
