"""The data sets that are known by name. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """One data set.

    Attributes:
        image: ``(c, h, w)``.
        linf, l2, l1: the usual radii; ``None`` where none is usual.
        torchvision: its class in ``torchvision.datasets``; ``""`` where there is none.
        marks: files and folders that torchvision creates in its root.
        also: what training scripts call it beside its name, letters and digits only.
    """

    image: tuple[int, int, int]
    classes: int
    linf: float
    l2: float | None = None
    torchvision: str = ""
    marks: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    l1: float | None = None


# l1 and MNIST's l2 are those of unions of norms: Croce and Hein, ICML 2022 (CIFAR-10, ImageNet),
# and Maini, Wong and Kolter, ICML 2020 (MNIST). CIFAR-100 and SVHN have CIFAR-10's image size.
DATA_SETS: Mapping[str, DataSet] = {
    "cifar10": DataSet((3, 32, 32), 10, 8 / 255, 0.5, "CIFAR10", ("cifar-10-batches-py",), l1=12.0),
    "svhn": DataSet(
        (3, 32, 32), 10, 8 / 255, 0.5, "SVHN", ("test_32x32.mat", "train_32x32.mat"), l1=12.0
    ),
    "cifar100": DataSet((3, 32, 32), 100, 8 / 255, 0.5, "CIFAR100", ("cifar-100-python",), l1=12.0),
    "mnist": DataSet((1, 28, 28), 10, 0.3, 2.0, "MNIST", ("MNIST/raw",), l1=10.0),
    "fashion-mnist": DataSet(
        (1, 28, 28), 10, 0.1, None, "FashionMNIST", ("FashionMNIST/raw",), ("fmnist",)
    ),
    "digits": DataSet((1, 8, 8), 10, 0.15, 0.5, l1=1.0),
    "imagenet": DataSet(
        (3, 224, 224), 1000, 4 / 255, 3.0, also=("imagenet1k", "ilsvrc2012"), l1=255.0
    ),
}


def known_as(text: str) -> str:
    """The name of the data set that a training script calls so; ``""`` for none.

    >>> known_as("CIFAR-10"), known_as("FMNIST"), known_as("faces")
    ('cifar10', 'fashion-mnist', '')
    """
    bare = re.sub(r"[^a-z0-9]", "", text.lower())
    return next((n for n, s in DATA_SETS.items() if bare in (n.replace("-", ""), *s.also)), "")


@dataclass(frozen=True)
class CorruptedSet:
    """A data set of corrupted images.

    Attributes:
        clean: name of the set whose test images it has.
        folder: its folder's name, as it is published.
    """

    clean: str
    folder: str


CORRUPTED: Mapping[str, CorruptedSet] = {
    "cifar10-c": CorruptedSet("cifar10", "CIFAR-10-C"),
    "cifar100-c": CorruptedSet("cifar100", "CIFAR-100-C"),
    "imagenet-c": CorruptedSet("imagenet", "ImageNet-C"),
}
CORRUPTED_FOLDER = "corruptions:"
"""Before the path of any folder of corrupted images."""

CORRUPTIONS: tuple[str, ...] = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
"""The fifteen over which accuracy and mCE are means (Hendrycks & Dietterich, "Benchmarking neural
network robustness to common corruptions and perturbations", ICLR 2019)."""
EXTRA_CORRUPTIONS: tuple[str, ...] = ("gaussian_blur", "saturate", "spatter", "speckle_noise")
"""Four more that come with the fifteen, to validate on; they are in no mean."""
SEVERITIES: tuple[int, ...] = (1, 2, 3, 4, 5)


def is_corrupted(name: str) -> bool:
    """Whether a data set of this name has corrupted images alone.

    >>> is_corrupted("cifar10-c"), is_corrupted("corruptions:DIR"), is_corrupted("cifar10")
    (True, True, False)
    """
    return name in CORRUPTED or name.startswith(CORRUPTED_FOLDER)
