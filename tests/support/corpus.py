"""Checkpoints in every form that people have: every network, container and prefix, written anew.

:func:`table` lists them for the documentation.
"""

import argparse
import copy
import datetime
import json
import pathlib
import warnings
from collections import OrderedDict, defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from robaudit.checkpoints.architectures.parsing import parse_arch
from robaudit.checkpoints.architectures.registry import ARCHITECTURES
from robaudit.checkpoints.normalization import NORMALIZATIONS


@dataclass(frozen=True)
class Family:
    """A kind of network: what it is, a small one of its kind, and the images it takes."""

    title: str
    label: str
    image: tuple[int, int, int] = (3, 32, 32)


FAMILIES = (
    Family("ResNet-18, CIFAR form (kuangliu, TRADES, AWP)", "resnet(width=8)"),
    Family("ResNet-50, CIFAR form", "resnet(depth=50, width=8)"),
    Family("ResNet-18, torchvision's keys with a CIFAR stem", "cifar_resnet(width=8)"),
    Family("PreActResNet-18 (kuangliu)", "preact_resnet(width=8, norm=none)"),
    Family("PreActResNet-18 with a last batch norm (Rice)", "preact_resnet(width=8)"),
    Family("PreActResNet-50", "preact_resnet(depth=50, width=8)"),
    Family("WideResNet-28 (TRADES, AWP)", "wide_resnet(depth=28, width=1, sub_block=1)"),
    Family("WideResNet-34 (RobustBench)", "wide_resnet(depth=34, width=1)"),
    Family("WideResNet with Swish (DeepMind)", "dm_wide_resnet(depth=16, width=1)"),
    Family("VGG-11 with batch norm, CIFAR form", "vgg(depth=11)"),
    Family("MobileNetV2, CIFAR form", "mobilenet_v2"),
    Family("WideResNet with numbered layers (meliketoy)", "wide_resnet_layers(depth=16, width=1)"),
    Family("MobileNetV2, torchvision's keys, CIFAR strides", "cifar_mobilenet_v2(width=25)"),
    Family("SmallCNN (TRADES)", "small_cnn", (1, 28, 28)),
    Family(
        "a Sequential of convolutions and linear layers (verification's CNN-A)",
        "sequential_cnn(layers=conv3x16k4s2p1-relu-conv16x32k4s2p1-relu-flatten-linear2048x100-relu-"
        "linear100x10)",
    ),
    Family(
        "ViT, timm's keys, any size", "vit(width=48, depth=2, heads=3, hidden=96, positions=65)"
    ),
    Family(
        "ViT, Hugging Face's keys",
        "hf_vit(width=64, depth=2, heads=1, hidden=96, patch=4, positions=65)",
    ),
    Family("digits ResNet (the samples)", "digits_resnet", (1, 8, 8)),
    Family("digits ViT (the samples)", "digits_vit", (1, 8, 8)),
)

LIBRARY = (
    Family("PreActResNet-18 with Swish (DeepMind)", "dm_preact_resnet(depth=18, activation=silu)"),
    Family("torchvision ResNet-18", "torchvision:resnet18", (3, 64, 64)),
    Family(
        "torchvision ResNet-50 for ten classes", "torchvision:resnet50(classes=10)", (3, 64, 64)
    ),
    Family("torchvision ViT-B/16", "torchvision:vit_b_16", (3, 224, 224)),
    Family("torchvision ConvNeXt-T", "torchvision:convnext_tiny", (3, 64, 64)),
    Family("torchvision MNASNet", "torchvision:mnasnet0_5(classes=10)", (3, 64, 64)),
    Family("torchvision RegNet", "torchvision:regnet_y_400mf(classes=10)", (3, 64, 64)),
    Family("torchvision Swin-T", "torchvision:swin_t", (3, 64, 64)),
)


def build(family):
    """A network of the family whose predictions on random images differ between images."""
    name, arguments = parse_arch(family.label)
    if name in ARCHITECTURES:
        network = ARCHITECTURES[name].factory(**arguments)
    else:
        from torchvision import models

        network = getattr(models, name.partition(":")[2])(
            num_classes=arguments.get("classes", 1000)
        )
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
    network.eval()
    # Centred logits: else a random network puts every image into the same class.
    head = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        head.bias -= network(images(family, 4 if family in LIBRARY else 64)).mean(0)
    return network


def images(family, n=8):
    """Coarse random patterns, so that networks see differences between them."""
    draw = torch.Generator().manual_seed(1)
    channels, height, width = family.image
    coarse = torch.rand(n, channels, 4, 4, generator=draw)
    fine = torch.rand(n, channels, height, width, generator=draw)
    return (nn.functional.interpolate(coarse, (height, width)) + 0.2 * fine) / 1.2


class Normalize(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(std)[None, :, None, None])

    def forward(self, x):
        return (x - self.mean) / self.std


class Holder(nn.Module):
    """Holds modules under the names it is given, as training code does."""

    def __init__(self, **held):
        super().__init__()
        for name, module in held.items():
            self.add_module(name, module)


def _normalized(network, family):
    n = NORMALIZATIONS["cifar10" if family.image[0] == 3 else "mnist"]
    return Normalize(n.mean, n.std)


PREFIXES = {
    "none": lambda net, _: net.state_dict(),
    "module.": lambda net, _: nn.DataParallel(net).state_dict(),
    "_orig_mod.": lambda net, _: Holder(_orig_mod=net).state_dict(),
    "module._orig_mod.": lambda net, _: nn.DataParallel(Holder(_orig_mod=net)).state_dict(),
    "model.": lambda net, _: Holder(model=net).state_dict(),
    "backbone.": lambda net, _: Holder(backbone=net).state_dict(),
    "net. beside a loss": lambda net, _: Holder(
        net=net, criterion=nn.CrossEntropyLoss(torch.ones(10))
    ).state_dict(),
    "1. behind a normalisation layer": lambda net, family: nn.Sequential(
        _normalized(net, family), net
    ).state_dict(),
    "module.model. beside an attacker (robustness)": lambda net, family: nn.DataParallel(
        Holder(
            normalizer=_normalized(net, family),
            model=net,
            attacker=Holder(normalizer=_normalized(net, family), model=net),
        )
    ).state_dict(),
    "module. with a count (AveragedModel)": lambda net, _: AveragedModel(net).state_dict(),
}
NORMALIZED = ("1. behind a normalisation layer", "module.model. beside an attacker (robustness)")


def _saved(make, name="model.pt", **options):
    def write(network, folder, _):
        path = folder / name
        torch.save(make(network), path, **options)
        return path

    return write


def _other(network):
    """The network as it was at another time: other weights under the same keys."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.01)
    return other.state_dict()


def _safetensors(network, folder, _):
    path = folder / "model.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    return path


def _script(network, folder, family):
    path = folder / "model.pt"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, images(family, 2)).save(str(path))
    return path


def _exported(network, folder, family):
    path = folder / "model.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(network, (images(family, 2),)), path)
    return path


def _folder(network, folder, _, shards=1, name="model.safetensors"):
    path = folder / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "custom"}))
    state = {k: v.contiguous() for k, v in network.state_dict().items()}
    if name.endswith(".bin"):
        torch.save(state, path / name)
    elif shards == 1:
        save_file(state, path / name)
    else:
        keys = list(state)
        index = {}
        for part in range(shards):
            file = f"model-{part + 1:05}-of-{shards:05}.safetensors"
            mine = keys[part::shards]
            save_file({key: state[key] for key in mine}, path / file)
            index |= dict.fromkeys(mine, file)
        (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return path


def _training(network):
    """What a training script stores besides weights."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    return {
        "epoch": 200,
        "state_dict": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, model="net", data=pathlib.PurePosixPath("data")),
        "best_acc": np.float64(84.5),
        "history": np.arange(3.0),
        "started": datetime.datetime(2024, 1, 2, 3, 4),
        "counts": defaultdict(int, {"steps": 3}),
        "dtype": torch.float32,
    }


def _lightning(network):
    return {
        "epoch": 3,
        "global_step": 1000,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": Holder(model=network).state_dict(),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.1},
    }


CONTAINERS = {
    "torch.save, zip": (_saved(lambda n: n.state_dict()), {}),
    "torch.save, legacy": (
        _saved(lambda n: n.state_dict(), _use_new_zipfile_serialization=False), {}
    ),
    "safetensors": (_safetensors, {}),
    "state_dict in a training checkpoint": (_saved(_training, "checkpoint.pth.tar"), {}),
    "model": (_saved(lambda n: {"model": n.state_dict(), "epoch": 1}), {}),
    "net": (_saved(lambda n: {"net": n.state_dict(), "acc": 93.1, "epoch": 1}), {}),
    "model_state_dict": (_saved(lambda n: {"model_state_dict": n.state_dict()}), {}),
    "a list of one": (_saved(lambda n: {"state_dict": [n.state_dict()]}), {}),
    "last and best": (
        _saved(lambda n: {"best": _other(n), "last": n.state_dict()}), {}
    ),
    "best, by --member": (
        _saved(lambda n: {"best": n.state_dict(), "last": _other(n)}), {"member": "best"}
    ),
    "beside state_dict_ema": (
        _saved(lambda n: {"state_dict_ema": _other(n), "state_dict": n.state_dict()}), {}
    ),
    "ema, by --weights": (
        _saved(lambda n: {"model": _other(n), "ema": n.state_dict()}), {"weights": "ema"}
    ),
    "swa, by --weights": (
        _saved(lambda n: {"net": _other(n), "swa_state_dict": AveragedModel(n).state_dict()}),
        {"weights": "swa"},
    ),
    "Lightning": (_saved(_lightning, "epoch=3.ckpt"), {}),
    "a whole module": (_saved(lambda n: n), {}),
    "TorchScript": (_script, {}),
    "torch.export": (_exported, {}),
    "Hugging Face folder": (_folder, {}),
    "Hugging Face folder, shards": (lambda n, f, s: _folder(n, f, s, shards=3), {}),
    "Hugging Face folder, pytorch_model.bin": (
        lambda n, f, s: _folder(n, f, s, name="pytorch_model.bin"), {}
    ),
}  # fmt: skip


def with_prefix(network, prefix, family):
    """The state dict under a prefix, ordered as PyTorch's are."""
    return OrderedDict(PREFIXES[prefix](network, family))


def table():
    """Markdown: what the corpus holds."""
    rows = ["| network | checked as |", "|---|---|"]
    rows += [f"| {f.title} | `{f.label}` |" for f in (*FAMILIES, *LIBRARY)]
    rows += ["", "| container | |", "|---|---|"]
    rows += [
        f"| {name} | {', '.join(f'`--{k} {v}`' for k, v in options.items())} |"
        for name, (_, options) in CONTAINERS.items()
    ]
    rows += ["", "| prefix of the keys |", "|---|"]
    rows += [f"| {name} |" for name in PREFIXES]
    return "\n".join(rows) + "\n"
