"""A freshly initialised network for given data, by the name of its architecture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from robaudit.checkpoints.architectures import UnknownArchitectureError, named, parse_arch
from robaudit.checkpoints.classifier import Classifier, Origin
from robaudit.checkpoints.factory import factory, is_code
from robaudit.checkpoints.loading import load
from robaudit.checkpoints.normalization import normalize_name, parse_normalization
from robaudit.errors import UsageError, first_line
from robaudit.types import Examples


@dataclass(frozen=True)
class Fresh:
    """An untrained classifier.

    Attributes:
        model: images in ``[0, 1]`` to logits, its parameters trainable.
        architecture: its name for a checkpoint; empty for the user's own code.
    """

    model: Classifier
    architecture: str


def fresh_classifier(arch: str, normalize: str | None, examples: Examples, seed: int) -> Fresh:
    """The network ``arch`` for these images and classes, initialised with ``seed``.

    Args:
        arch: as for ``--arch``; classes and channels are those of the data unless given.
        normalize: as for ``--normalize``; if ``None``, the usual one of the family, if any.
        examples: training images and labels.
        seed: of the initialisation.

    Raises:
        UsageError: there is no such network, or it does not accept the images.
    """
    classes = examples.classes or int(examples.y.max()) + 1
    channels = int(examples.x.shape[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if is_code(arch):
            network, label, usual = factory(arch)(), "", ""
        else:
            network, label, usual = _named(arch, classes, channels)
    given = parse_normalization(normalize or usual or "none")
    normalization = None if given is None else given.for_channels(channels)
    origin = Origin(
        source="training",
        sha256=None,
        format="module",
        architecture=label or arch,
        identified_by="--arch",
        normalization=normalize_name(normalization),
        parameters=sum(p.numel() for p in network.parameters()),
    )
    model = Classifier(network, normalization, origin).requires_grad_(True)
    _check(model, examples, classes, arch)
    return Fresh(model, label)


def begin_with(fresh: Fresh, start: str, arch: str) -> str | None:
    """Give the network the weights of a checkpoint; returns the hash of its file.

    Args:
        start: what :func:`robaudit.load` opens, of the same architecture.
        arch: as for :func:`fresh_classifier`.

    Raises:
        CheckpointError: it cannot be read, or does not fit the network.
    """
    known = arch if is_code(arch) else fresh.architecture
    normalization = fresh.model.origin.normalization
    found = load(start, arch=known, normalize=normalization, device="cpu")
    fresh.model.network.load_state_dict(found.network.state_dict())
    return found.origin.sha256


def _named(arch: str, classes: int, channels: int) -> tuple[nn.Module, str, str]:
    """Network, label and usual normalisation."""
    try:
        name, arguments = parse_arch(arch)
        failed: ValueError | RuntimeError | None = None
        for known in _from_data(classes, channels):
            candidate = named(name, {**known, **arguments}, {})[0]
            try:
                return candidate.build(), candidate.label, candidate.family.normalization
            except (ValueError, RuntimeError) as error:
                failed = failed or error
    except UnknownArchitectureError as error:
        raise UsageError(
            f"--arch {arch}: there is no such architecture"
            + (f"; did you mean {error.near[0]!r}?" if error.near else ""),
            "Write NAME, NAME(argument=value, ...) or file.py:factory.",
        ) from None
    except ValueError as error:
        raise UsageError(f"--arch {arch}: {error}") from None
    except ImportError as error:
        raise UsageError(f"--arch {arch} needs {error.name}, which is not installed") from None
    raise UsageError(f"--arch {arch}: {failed}", "Give its arguments: NAME(argument=value, ...).")


def _from_data(classes: int, channels: int) -> Iterator[dict[str, int | str]]:
    # Not every family has both arguments: a sequence of layers has them in its layers.
    yield {"classes": classes, "channels": channels}
    yield {"classes": classes}
    yield {}


def _check(model: Classifier, examples: Examples, classes: int, arch: str) -> None:
    model.eval()
    try:
        with torch.no_grad():
            logits = model(examples.x[:2])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shape = "x".join(map(str, examples.x.shape[1:]))
        raise UsageError(
            f"--arch {arch} does not take images of {shape}: {first_line(error)}"
        ) from None
    if logits.ndim != 2 or logits.shape[1] < classes:
        raise UsageError(
            f"--arch {arch} gives {tuple(logits.shape[1:])} logits per image, and the data has "
            f"{classes} classes"
        )
