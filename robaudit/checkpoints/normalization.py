"""Normalisation of images in [0, 1] before they enter the network. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robaudit.errors import UsageError

_GREY = ("mnist", "fashion-mnist")
_HOW = 'Use none, a name ({names}) or "m,m,m;s,s,s": the means, a semicolon, the deviations.'


@dataclass(frozen=True)
class Normalization:
    """``(x - mean) / std`` per channel; ``name`` is its value of ``--normalize``."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def for_channels(self, channels: int) -> Normalization:
        """The same for that many channels; a single number is used for every channel.

        Raises:
            UsageError: there are other numbers of means than of channels.
        """
        if len(self.mean) == channels:
            return self
        if len(self.mean) == 1 and self.name not in _GREY:
            return Normalization(self.name, self.mean * channels, self.std * channels)
        raise UsageError(
            f"--normalize {self.name} is for {len(self.mean)} channels, the images have {channels}",
            "Give one mean and one deviation per channel.",
        )


NORMALIZATIONS = {
    found.name: found
    for found in (
        Normalization("cifar10", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        Normalization("cifar10-moments", (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
        Normalization("cifar100", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        Normalization("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        Normalization("mnist", (0.1307,), (0.3081,)),
        Normalization("svhn", (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
        Normalization("fashion-mnist", (0.2860,), (0.3530,)),
        Normalization("half", (0.5,), (0.5,)),
        Normalization("bytes", (0.0,), (1 / 255,)),
        Normalization("crown", (0.485, 0.456, 0.406), (0.225, 0.225, 0.225)),
    )
}
"""The figures that training scripts commonly use: ``cifar10`` those of kuangliu's pytorch-cifar
(its deviations are means over images, not over the whole set, but networks were trained with
them), ``cifar10-moments`` with the set's own deviations, ``imagenet`` torchvision's, ``mnist``
those of PyTorch's MNIST example; ``cifar100``, ``svhn`` and ``fashion-mnist`` are the moments of
the training sets; ``half`` maps [0, 1] to [-1, 1], ``bytes`` to [0, 255]; ``crown`` is that of
alpha-beta-CROWN's CIFAR-10 models."""


def usual(channels: int) -> tuple[Normalization | None, ...]:
    """The usual normalisations of images with that many channels, first ``None`` for none."""
    fitting = []
    for known in NORMALIZATIONS.values():
        try:
            fitting.append(known.for_channels(channels))
        except UsageError:
            continue
    return (None, *fitting)


def spelled(mean: tuple[float, ...], std: tuple[float, ...]) -> Normalization:
    """The normalisation with these numbers, under its usual name if it has one.

    >>> spelled((0.1307,), (0.3081,)).name, spelled((0.5,), (0.25,)).name
    ('mnist', '0.5;0.25')
    """
    numbers = (*mean, *std)
    for known in NORMALIZATIONS.values():
        theirs = (*known.mean, *known.std)
        if len(theirs) == len(numbers) and all(
            math.isclose(a, b, abs_tol=1e-6) for a, b in zip(numbers, theirs, strict=True)
        ):
            return known
    return Normalization(_name(mean, std), mean, std)


def normalize_name(normalization: Normalization | None) -> str:
    """Its value of ``--normalize``."""
    return "none" if normalization is None else normalization.name


def parse_normalization(text: str) -> Normalization | None:
    """Read the value of ``--normalize``; ``None`` for ``none``.

    Raises:
        UsageError: an unknown name, no numbers, unequal counts, or a deviation not above zero.

    >>> parse_normalization("0.5;0.25")
    Normalization(name='0.5;0.25', mean=(0.5,), std=(0.25,))
    """
    text = text.strip()
    if text.lower() == "none":
        return None
    if text.lower() in NORMALIZATIONS:
        return NORMALIZATIONS[text.lower()]
    how = _HOW.format(names=", ".join(NORMALIZATIONS))
    if text.count(";") != 1:
        raise UsageError(f"unknown normalisation {text[:80]!r}", how)
    try:
        mean, std = (tuple(float(n) for n in part.split(",")) for part in text.split(";"))
    except ValueError:
        raise UsageError(
            f"the normalisation {text[:80]!r} has parts that are no numbers", how
        ) from (None)
    if len(mean) != len(std):
        raise UsageError(
            f"the normalisation has {len(mean)} means and {len(std)} standard deviations", how
        )
    if not all(map(math.isfinite, (*mean, *std))):
        raise UsageError("the normalisation has numbers that are not finite", how)
    if min(std) <= 0:
        raise UsageError("the normalisation has a standard deviation that is not positive", how)
    return Normalization(_name(mean, std), mean, std)


def _name(*parts: tuple[float, ...]) -> str:
    return ";".join(",".join(f"{number!r}" for number in part) for part in parts)
