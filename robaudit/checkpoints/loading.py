"""From a file to a classifier: which network it is, how its inputs are normalised, and the fit."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from robaudit.checkpoints.architectures.registry import ARCHITECTURES, identify
from robaudit.checkpoints.classifier import Classifier, Origin
from robaudit.checkpoints.contents import shown
from robaudit.checkpoints.factory import factory, is_code
from robaudit.checkpoints.fitting import check_fit, fit
from robaudit.checkpoints.normalization import Normalization, parse_normalization
from robaudit.checkpoints.reading import LoadedWeights, read_state_dict
from robaudit.checkpoints.sidecar import Statement, statement_of
from robaudit.engine.device import resolve_device
from robaudit.errors import CheckpointError, UsageError

NO_NORMALIZATION = (
    "no normalisation given: images enter the network as they are in [0, 1]; if training "
    "normalised them, pass --normalize, else the accuracy will be far too low"
)


@dataclass(frozen=True)
class _Choice:
    network: nn.Module
    architecture: str
    identified_by: str
    registered: bool


def load(
    source: str | Path,
    *,
    arch: str | None = None,
    normalize: str | None = None,
    device: str = "auto",
) -> Classifier:
    """Load a checkpoint as a classifier of images in [0, 1], in evaluation mode.

    Args:
        source: a file of ``torch.save`` with a state dict in it, or a safetensors file.
        arch: an architecture's name, ``module:factory`` or ``file.py:factory``; by default what
            the checkpoint says of itself, else what its keys and shapes are.
        normalize: ``none``, a name, or ``"m,m,m;s,s,s"``; by default what the checkpoint says.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.

    Raises:
        CheckpointError: the file is unsafe, unreadable, not identified, or does not fit.
        UsageError: an option cannot be meant.
    """
    place = resolve_device(device)
    asked = None if normalize is None else parse_normalization(normalize)
    name = shown(source, 200)
    weights = read_state_dict(source)
    statement = statement_of(weights.container)
    choice = _choose(weights, arch, statement, name)
    normalization, warnings = _normalization(normalize, asked, statement, choice, name)
    choice.network.float()  # measurements are made in float32, whatever the factory chose
    remarks = fit(choice.network, weights.state_dict, name)
    origin = Origin(
        source=str(source),
        sha256=weights.sha256,
        format=weights.format,
        architecture=choice.architecture,
        identified_by=choice.identified_by,
        normalization=normalization.name if normalization else "none",
        parameters=sum(p.numel() for p in choice.network.parameters()),
        warnings=(*warnings, *remarks),
        member=weights.member,
    )
    return Classifier(choice.network, normalization, origin).to(place)


def _choose(
    weights: LoadedWeights, arch: str | None, statement: Statement | None, name: str
) -> _Choice:
    if arch is not None and is_code(arch):
        return _Choice(factory(arch)(), arch, "--arch", False)
    if arch is not None:
        return _Choice(_registered(arch, {}, weights, name, UsageError), arch, "--arch", True)
    if statement is not None and statement.architecture:
        said, kwargs = statement.architecture, statement.kwargs
        network = _registered(said, kwargs, weights, name, CheckpointError)
        return _Choice(network, said, statement.where, True)
    found = identify({key: tuple(value.shape) for key, value in weights.state_dict.items()})
    if found is None:
        raise _unidentified(weights, name)
    network = _registered(found[0], found[1], weights, name, CheckpointError)
    return _Choice(network, found[0], "its keys and shapes", True)


def _registered(
    architecture: str,
    kwargs: Mapping[str, int],
    weights: LoadedWeights,
    name: str,
    unknown: type[UsageError | CheckpointError],
) -> nn.Module:
    """Build a network robaudit knows, with arguments given or read off the shapes."""
    family = ARCHITECTURES.get(architecture)
    if family is None:
        near = difflib.get_close_matches(architecture, ARCHITECTURES, 1)
        raise unknown(
            f"unknown architecture {shown(architecture)!r}"
            + (f"; did you mean {near[0]!r}?" if near else ""),
            f"Known are {', '.join(ARCHITECTURES)}; your own is --arch file.py:factory.",
        )
    shapes = {key: tuple(value.shape) for key, value in weights.state_dict.items()}
    arguments = {**(family.guess(shapes) or {}), **kwargs}
    try:
        # First without memory: the arguments come from the file, and may be absurd.
        with torch.device("meta"):
            sketch = family.factory(**arguments)
        check_fit(sketch, weights.state_dict, name)
        with torch.random.fork_rng(devices=[]):
            return family.factory(**arguments)
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(
            f"{name}: {architecture} cannot be built for these weights: {shown(error, 160)}",
            "Check --arch, or the arguments beside the checkpoint.",
        ) from None


def _normalization(
    given: str | None,
    asked: Normalization | None,
    statement: Statement | None,
    choice: _Choice,
    name: str,
) -> tuple[Normalization | None, tuple[str, ...]]:
    if given is not None:
        return asked, ()
    if statement is not None and statement.normalization is not None:
        try:
            return parse_normalization(statement.normalization), ()
        except UsageError as error:
            raise CheckpointError(
                f"{name}: {statement.where}: {error.message}", error.advice
            ) from None
    # The networks robaudit brings along take images in [0, 1] as they are.
    return None, () if choice.registered else (NO_NORMALIZATION,)


def _unidentified(weights: LoadedWeights, name: str) -> CheckpointError:
    entries = [f"{shown(key)} {tuple(value.shape)}" for key, value in weights.state_dict.items()]
    listed = ", ".join(entries if len(entries) <= 5 else [*entries[:3], "...", entries[-1]])
    return CheckpointError(
        f"{name}: no known architecture has these {len(entries)} tensors: {listed}",
        "Give the network: --arch file.py:factory, a function without arguments that returns it.",
    )
