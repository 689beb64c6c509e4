"""The data set a checkpoint was trained on, as far as the file alone tells: what it records, which
images its network takes, and how many classes it has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from robaudit.checkpoints.architectures.architecture import (
    Candidate,
    Image,
    Shapes,
    UnknownArchitectureError,
)
from robaudit.checkpoints.architectures.parsing import parse_arch
from robaudit.checkpoints.architectures.registry import identify_among, named
from robaudit.checkpoints.effective import readings
from robaudit.checkpoints.factory import factory, is_code, unwrapped
from robaudit.checkpoints.files.container import read_container
from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.fitting import check_fit, nearest
from robaudit.checkpoints.sidecar import statement_of
from robaudit.checkpoints.sources import is_source, zoo_threat
from robaudit.checkpoints.wrapping import Unwrapped
from robaudit.datasets import DATA_SETS, known_as
from robaudit.request import CheckpointSpec

IMAGES: tuple[Image, ...] = (*dict.fromkeys(s.image for s in DATA_SETS.values()), (3, 64, 64))
"""Images of the usual data sets."""

_RECORD = re.compile(r"(.*[._])?(data|dataset|data_?name|dataset_?name)")


@dataclass(frozen=True)
class TrainedOn:
    """What a checkpoint tells about its data.

    Attributes:
        recorded: the data set that the file names; ``""`` for none.
        takes: the usual images that its network takes, with the number of outputs; ``None`` if the
            network is unknown.
        fixed: whether one network takes all of them, not another network for each size.
    """

    recorded: str = ""
    takes: Mapping[Image, int] | None = None
    fixed: bool = False


def trained_on(source: str, asked: CheckpointSpec) -> TrainedOn:
    """Read what a checkpoint tells about its data, without loading weights or running the file.

    Raises:
        CheckpointError: the file is missing, damaged or refused, the code of ``arch`` fails, or its
            network is not the file's.
        UsageError: ``arch`` is invalid.
    """
    if is_source(source):
        stated = zoo_threat(source)
        scheme, _, rest = source.partition(":")
        recorded = stated[0] if stated else rest.partition("/")[0]
        return TrainedOn(known_as(recorded) if scheme == "robustbench" else "imagenet")
    arch = asked.arch
    container = read_container(Path(source), hash=False, member=asked.member, weights=asked.weights)
    if container.refusal is not None and not asked.trust_pickle:
        raise container.refusal.error()
    recorded = _recorded(container.metadata)
    stages, _ = readings({info.name: info.shape for info in container.tensors})
    if arch is not None and is_code(arch):
        network = unwrapped(factory(arch)())
        if container.refusal is None:
            _check_fit(network, stages, shown(Path(source), 200))
        return TrainedOn(recorded, _asked(network), fixed=True)
    statement = statement_of(container)
    said = arch or (statement.architecture if statement is not None else None)
    keys = [stage.shapes for stage in stages]
    if said is None:
        takes = _taken(lambda image: identify_among(keys, image=image)[1])
        return TrainedOn(recorded, takes or None)
    for own in keys:
        if takes := _named(said, own):
            return TrainedOn(recorded, takes, fixed=True)
    return TrainedOn(recorded)


def _check_fit(network: nn.Module, stages: Sequence[Unwrapped], name: str) -> None:
    own = nearest(network, stages).shapes
    state = {key: torch.empty(shape, device="meta") for key, shape in own.items()}
    check_fit(network, state, name)


def _recorded(metadata: Mapping[str, str]) -> str:
    for key, value in metadata.items():
        if _RECORD.fullmatch(key.lower()) and (name := known_as(value)):
            return name
    return ""


def _named(said: str, shapes: Shapes) -> dict[Image, int]:
    try:
        name, arguments = parse_arch(said)
    except ValueError:
        return {}
    if name.startswith("digits_"):
        return {(1, 8, 8): 10}

    def fitting(image: Image) -> tuple[Candidate, ...]:
        found = named(name, arguments, shapes, image=image)
        return tuple(c for c in found if c.fits(shapes) and c.takes(image))

    try:
        return _taken(fitting)
    except UnknownArchitectureError:
        return {}


def _taken(found: Callable[[Image], Iterable[Candidate]]) -> dict[Image, int]:
    takes: dict[Image, int] = {}
    for image in IMAGES:
        first = next(iter(found(image)), None)
        if first is None:
            continue
        if first.architecture.startswith("digits_"):
            return {(1, 8, 8): 10}
        outputs = first.outputs(image)
        if outputs:
            takes[image] = outputs
    return takes


def _asked(network: nn.Module) -> dict[Image, int]:
    """The outputs of the user's own network for black images."""
    takes = {}
    network.eval()
    for image in IMAGES:
        x = torch.zeros(2, *image, dtype=_dtype(network))
        # It may raise anything for images that it was not made for.
        with suppress(Exception), torch.no_grad():
            logits = network(x)
            if isinstance(logits, torch.Tensor) and logits.ndim == 2 and len(logits) == 2:
                takes[image] = logits.shape[1]
    return takes


def _dtype(network: nn.Module) -> torch.dtype:
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
