"""Whether a normalisation is another data set's than the one that the images are of."""

from __future__ import annotations

from robaudit.checkpoints.normalization import NORMALIZATIONS, Normalization
from robaudit.types import Examples

# Which data set's moments a normalisation holds; the others are nobody's.
_OF = {
    "cifar10": "cifar10",
    "cifar10-moments": "cifar10",
    "cifar100": "cifar100",
    "svhn": "svhn",
    "mnist": "mnist",
    "fashion-mnist": "fashion-mnist",
}
_SIDES = {"mnist": 28, "fashion-mnist": 28}
# Means of a thousand images are within 0.01 of the set's.
_NEAR = 0.03
_IMAGES = 1024


def is_foreign(normalization: Normalization | None, examples: Examples) -> bool:
    """Whether it is known to be for other images than these."""
    of = None if normalization is None else _OF.get(normalization.name)
    own = data_set_of(examples)
    return of is not None and own is not None and of != own


def data_set_of(examples: Examples) -> str | None:
    """The usual data set that the images are of: by name, else by size and mean colour."""
    if examples.name in _OF.values():
        return examples.name
    channels, side = examples.x.shape[1:3]
    means = examples.x[:_IMAGES].mean(dim=(0, 2, 3)).tolist()
    nearest, least = None, _NEAR
    for name, of in _OF.items():
        known = NORMALIZATIONS[name].mean
        if len(known) != channels or side != _SIDES.get(of, 32):
            continue
        far = max(abs(a - b) for a, b in zip(known, means, strict=True))
        if far < least:
            nearest, least = of, far
    return nearest
