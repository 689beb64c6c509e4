"""The families, by name, and the search among them.

A new family is a factory, a signature of the same name, and that name in the table here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from itertools import chain, islice
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from robaudit.checkpoints.architectures.architecture import (
    Architecture,
    Arguments,
    Candidate,
    Image,
    Lazy,
    Shapes,
    UnknownArchitectureError,
    alike_once,
)
from robaudit.checkpoints.architectures.library import (
    library_architecture,
    library_architectures,
)
from robaudit.checkpoints.architectures.signatures import (
    convolutional,
    residual_families,
    transformers,
)

if TYPE_CHECKING:
    from torch import nn

# The module of each family's factory, which imports torch; its signatures, which do not; its names.
_FAMILIES: tuple[tuple[str, ModuleType, str], ...] = (
    (
        "residual_families",
        residual_families,
        "resnet preact_resnet wide_resnet dm_wide_resnet dm_preact_resnet cifar_resnet "
        "wide_resnet_layers digits_resnet",
    ),
    (
        "convolutional",
        convolutional,
        "vgg mobilenet_v2 cifar_mobilenet_v2 small_cnn sequential_cnn plain_cnn",
    ),
    ("transformers", transformers, "vit hf_vit digits_vit"),
)
_USUAL: Arguments = {"classes": 10, "channels": 3, "pooled": 1}
# Usual arguments of single families.
_WIDTHS: Mapping[str, Arguments] = {
    "resnet": {"width": 64},
    "preact_resnet": {"width": 64},
    "cifar_resnet": {"width": 64},
    "cifar_mobilenet_v2": {"width": 100},
    "vit": {"bias": "yes", "pool": "token"},
    "small_cnn": {"width": 32, "hidden": 200, "side": 4, "channels": 1},
    "digits_resnet": {"channels": 1, "width": 24},
    "digits_vit": {"channels": 1, "width": 40, "depth": 2, "patch": 2, "tokens": 16},
}
# The samples' networks take images in [0, 1] as they are.
_NORMALIZATIONS = {"digits_resnet": "none", "digits_vit": "none"}
# Their keys do not tell which of the variants that the shapes allow they are.
_ANONYMOUS = ("sequential_cnn", "plain_cnn")
_MAX_SUSPECTS = 24
_GROUP = "robaudit.architectures"

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        name: Architecture(
            name,
            getattr(signatures, name),
            Lazy(f"{__package__}.{module}", name),
            {**_USUAL, **_WIDTHS.get(name, {})},
            normalization=_NORMALIZATIONS.get(name, ""),
            sized=getattr(signatures, name) if name in _ANONYMOUS else None,
            alike=convolutional.unactivated if name in _ANONYMOUS else dict,
        )
        for module, signatures, names in _FAMILIES
        for name in names.split()
    }
)
"""robaudit's own families, in the order in which they are tried."""


_PLAIN = ARCHITECTURES["plain_cnn"]


def identify(shapes: Shapes, *, image: Image | None = None) -> tuple[Candidate, ...]:
    """Every network that has exactly these keys and shapes, the most usual first.

    Several candidates differ in activation, stride, padding, pooling or the like, which only data
    can decide. Batch norm's step counters are not compared.

    Args:
        shapes: of the network's own state dict, without wrappers.
        image: ``(c, h, w)`` of the images, if known: networks that do not take them or do not give
            logits ``(n, k)`` are left out.
    """
    return identify_among([shapes], image=image)[1]


def identify_among(
    stages: Sequence[Shapes], *, image: Image | None = None
) -> tuple[int, tuple[Candidate, ...]]:
    """:func:`identify` for keys without more and more of their wrappers.

    Named networks are tried first, under any wrappers. A plain chain of layers fits with any
    prefix, so chains are tried last, on the keys without wrappers first.

    Returns:
        the index of the stage whose keys fit, and the candidates, perhaps none.
    """
    for at, shapes in enumerate(stages):
        families = chain(_known(), registered().values(), library_architectures(shapes))
        found = tuple(chain.from_iterable(_fitting(one, shapes, image) for one in families))
        if found:  # with data of the wrong size, a named network is still no chain
            return at, _taking(image, found)
    for at in reversed(range(len(stages))):
        found = _taking(image, _fitting(_PLAIN, stages[at], image))
        if found:
            return at, found
    return 0, ()


def _fitting(family: Architecture, shapes: Shapes, image: Image | None) -> tuple[Candidate, ...]:
    return family.fitting(family.guesses(shapes, image), shapes)


def named(
    name: str, arguments: Arguments, shapes: Shapes, *, image: Image | None = None
) -> tuple[Candidate, ...]:
    """The networks of one architecture that may have these shapes, with ``arguments`` as given.

    If none fits, one that does not, so that the error can say what differs.

    Raises:
        UnknownArchitectureError: no architecture has this name.
    """
    family = _family(name)
    pinned = [{**guess, **arguments} for guess in family.guess(shapes)] or [dict(arguments)]
    guesses = [guess for i, guess in enumerate(pinned) if guess not in pinned[:i]]
    fitting = family.fitting(guesses, shapes)
    return _taking(image, fitting) or fitting[:1] or (family.candidate(guesses[0]),)


def suspect(shapes: Shapes) -> tuple[Candidate, ...]:
    """The networks whose characteristic keys are there; without torch, nothing else is checked."""
    return suspect_among([shapes])


def suspect_among(stages: Sequence[Shapes]) -> tuple[Candidate, ...]:
    """:func:`suspect` for keys without more and more of their wrappers.

    In the order of :func:`identify_among`.
    """
    for shapes in stages:
        families = chain(_known(), library_architectures(shapes))
        if found := _first(family.suspected(shapes) for family in families):
            return found
    for shapes in reversed(stages):
        if found := _first([_PLAIN.suspected(shapes)]):
            return found
    return ()


def _first(found: Iterable[Iterable[Candidate]]) -> tuple[Candidate, ...]:
    return tuple(islice(chain.from_iterable(found), _MAX_SUSPECTS))


def _known() -> list[Architecture]:
    """All families but plain chains, which any state dict of layers may fit."""
    return [family for family in ARCHITECTURES.values() if family is not _PLAIN]


def _family(name: str) -> Architecture:
    library = library_architecture(name)
    if library is not None:
        return library
    known = {**registered(), **ARCHITECTURES}
    if name not in known:
        raise UnknownArchitectureError(name, known)
    return known[name]


def _taking(image: Image | None, found: Iterable[Candidate]) -> tuple[Candidate, ...]:
    return tuple(found if image is None else alike_once(found, lambda c: c.takes(image)))


@cache
def registered() -> Mapping[str, Architecture]:
    """What the entry points of the group ``robaudit.architectures`` give, by name.

    An entry point is an :class:`Architecture`, or a factory, which is built only when it is named.
    Loading one runs the package's code; one that fails is skipped with a warning.
    """
    found = {}
    for point in entry_points(group=_GROUP):
        try:
            found[point.name] = _loaded(point)
        except Exception as error:  # someone else's code
            warnings.warn(
                f"the architecture {point.name!r} of the entry point {point.value!r} is skipped: "
                f"{type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
    return found


def _loaded(point: EntryPoint) -> Architecture:
    loaded = point.load()
    if isinstance(loaded, Architecture):
        return loaded
    if not callable(loaded):
        raise TypeError("it is neither an Architecture nor a function that builds a network")
    factory: Callable[..., nn.Module] = loaded
    return Architecture(point.name, lambda _: (), factory, usual={})
