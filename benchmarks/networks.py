"""The networks that the curvature benchmarks run on."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import robaudit as ra
from robaudit.checkpoints import samples_dir


@dataclass(frozen=True)
class Case:
    """A network with clean images: what the traces cost does not depend on the images."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor


def cases(only=()):
    """Those that are at hand, of the names asked for.

    ``digits`` is bundled. ``cnn-a`` needs the folder that ``ROBAUDIT_REAL_DATA`` names;
    ``resnet-18`` needs its images, and the checkpoint that comes with ``pyautoattack``.
    """
    makers = {"digits": digits, "cnn-a": cnn_a, "resnet-18": resnet_18}
    for name, make in makers.items():
        if not only or name in only:
            case = make()
            if case is None:
                print(f"{name}: left out, its files are not here\n")
            else:
                yield case


def digits():
    examples = ra.load_examples("digits")
    model = ra.load(samples_dir() / "robust.pt", device="cpu")
    return Case("digits", model, examples.x, examples.y)


def cnn_a(n=1000):
    if not (folder := real_data()):
        return None
    networks = Path(__file__).parents[1] / "tests" / "support" / "published_networks.py"
    model = ra.load(
        folder / "checkpoints" / "sdp_cifar_cnn_a_adv.model",
        arch=f"{networks}:cnn_a",
        normalize="0.485,0.456,0.406;0.225,0.225,0.225",
        device="cpu",
    )
    return Case("cnn-a", model, *cifar(folder, n))


def resnet_18(n=32):
    package = importlib.util.find_spec("pyautoattack")
    file = Path(package.origin).parent / "examples" / "model_test.pt" if package else None
    if not (folder := real_data()) or file is None or not file.exists():
        return None
    model = ra.load(file, normalize="none", device="cpu")
    return Case("resnet-18", model, *cifar(folder, n))


def real_data():
    found = os.environ.get("ROBAUDIT_REAL_DATA")
    return Path(found) if found else None


def cifar(folder, n):
    import numpy as np

    data = np.load(folder / "cifar10_test_first1017.npz")
    return torch.tensor(data["x"][:n]).float() / 255, torch.tensor(data["y"][:n]).long()
