"""A package like RobustBench, with small networks: its own ``__init__`` fails, its zoo works."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from robaudit.checkpoints.sources import zoo
from robaudit.checkpoints.sources.catalogue import catalogue, find_entry
from robaudit.checkpoints.sources.robustbench import build

FILES = {
    "__init__.py": "import pkg_resources_that_are_gone\n",
    "utils.py": "ANSWER = 42\n",
    "model_zoo/__init__.py": "from .models import model_dicts\n",
    "model_zoo/enums.py": """
from enum import Enum

class BenchmarkDataset(Enum):
    cifar_10 = 'cifar10'
    cifar_100 = 'cifar100'
    imagenet = 'imagenet'

class ThreatModel(Enum):
    Linf = "Linf"
    L2 = "L2"
    corruptions = "corruptions"
""",
    "model_zoo/models.py": """
from collections import OrderedDict
from robustbench.model_zoo.cifar10 import cifar_10_models
from robustbench.model_zoo.cifar100 import cifar_100_models
from robustbench.model_zoo.imagenet import imagenet_models
from robustbench.model_zoo.enums import BenchmarkDataset

model_dicts = OrderedDict([
    (BenchmarkDataset.cifar_10, cifar_10_models),
    (BenchmarkDataset.cifar_100, cifar_100_models),
    (BenchmarkDataset.imagenet, imagenet_models)
])
""",
    "model_zoo/nets.py": """
from collections import OrderedDict
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, classes=10, normalised=False):
        super().__init__()
        print("made")
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, classes)
        if normalised:
            self.register_buffer('mu', torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
            self.register_buffer('sigma', torch.tensor([0.2, 0.2, 0.2]).view(1, 3, 1, 1))

    def forward(self, x):
        if hasattr(self, 'mu'):
            x = (x - self.mu) / self.sigma
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))

class Normalise(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer('std', torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std

def normalised(net):
    return nn.Sequential(OrderedDict([('normalize', Normalise()), ('model', net)]))

class Ensemble(nn.Module):
    def __init__(self):
        super().__init__()
        self.models = nn.ModuleList([Small(), Small(), Small()])

    def forward(self, x):
        return sum(net(x) for net in self.models)

class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.models = nn.ModuleList([Small(), Small()])
        self.policy_net = Small(1)
        self.bn = nn.BatchNorm1d(1, affine=False)

    def forward(self, x):
        weight = torch.sigmoid(self.bn(self.policy_net(x)))
        return weight * self.models[0](x) + (1 - weight) * self.models[1](x)

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.comp_model = Mixing()

    def forward(self, x):
        return self.comp_model(x)

class OnGpu(Small):
    def __init__(self):
        super().__init__()
        self.shift = torch.tensor(2.0).cuda()

    def forward(self, x):
        return super().forward(x) + self.shift

def broken():
    raise RuntimeError("this timm is too new")
""",
    "model_zoo/cifar10.py": """
from collections import OrderedDict
from robustbench.model_zoo.enums import ThreatModel
from robustbench.model_zoo.nets import Small, Ensemble, OnGpu, Wrapped, broken

linf = OrderedDict([
    ('Plain2020Net', {'model': Small, 'gdrive_id': 'plain-id'}),
    ('Normal2020Net', {'model': lambda: Small(normalised=True), 'gdrive_id': 'normal-id'}),
    ('Modas2021PRIMEResNet18', {'model': lambda: Small(normalised=True), 'gdrive_id': 'modas-id'}),
    ('Deck2021Net', {'model': Ensemble, 'gdrive_id': ['a', 'b', 'c']}),
    ('Bai2023Improving_edm', {'model': lambda: Wrapped(), 'gdrive_id': ['d', 'e', 'f']}),
    ('Gpu2023Net', {'model': OnGpu, 'gdrive_id': 'gpu-id'}),
    ('Broken2022Net', {'model': broken, 'gdrive_id': 'broken-id'}),
])
l2 = OrderedDict([('Plain2020Net_L2', {'model': Small, 'gdrive_id': 'l2-id'})])
cifar_10_models = OrderedDict([(ThreatModel.Linf, linf), (ThreatModel.L2, l2)])
""",
    "model_zoo/cifar100.py": """
from collections import OrderedDict
from robustbench.model_zoo.enums import ThreatModel
from robustbench.model_zoo.nets import Small

linf = OrderedDict([('Plain2020Net', {'model': lambda: Small(100), 'gdrive_id': 'id-100'})])
cifar_100_models = OrderedDict([(ThreatModel.Linf, linf)])
""",
    "model_zoo/imagenet.py": """
from collections import OrderedDict
from robustbench.model_zoo.enums import ThreatModel
from robustbench.model_zoo.nets import Small, normalised

mu, sigma = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
normalize_model = lambda net, mu, sigma: normalised(net)
linf = OrderedDict([
    ('Big2021Net', {'model': lambda: normalised(Small(1000)), 'gdrive_id': 'big-id',
                    'preprocessing': 'Res256Crop224'}),
])
imagenet_models = OrderedDict([(ThreatModel.Linf, linf)])
""",
}


@contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package first on the import path, in place of a real one."""
    for name, text in FILES.items():
        file = folder / "robustbench" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    with fresh(monkeypatch):
        yield


@contextmanager
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """RobustBench is looked for anew, now and again afterwards."""
    monkeypatch.setattr(zoo, "_kept", {})
    theirs = {name: sys.modules.pop(name) for name in _loaded()}
    catalogue.cache_clear()
    yield
    catalogue.cache_clear()
    for name in _loaded():
        del sys.modules[name]
    sys.modules.update(theirs)


def _loaded() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "robustbench"]


PLAIN = "robustbench:cifar10/Linf/Plain2020Net"
NORMAL = "robustbench:cifar10/Linf/Normal2020Net"
X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def made(text, seed=7):
    """The entry's network with weights and statistics that no other build has."""
    torch.manual_seed(seed)
    network = build(find_entry(text.partition(":")[2]))
    for buffer in network.buffers():
        if buffer.is_floating_point() and buffer.numel() != 3:
            buffer.uniform_(0.5, 1.5)
    return network


def save(content, models, text, suffix=".pt"):
    path = models / (text.partition(":")[2] + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def logits(network):
    with torch.no_grad():
        return network(X)


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}
