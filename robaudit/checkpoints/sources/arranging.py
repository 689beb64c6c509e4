"""Matches the keys of a published file to the keys of its network."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.fitting import fit
from robaudit.checkpoints.sources.fetching import another
from robaudit.errors import CheckpointError

_WRAPPERS = ("module.", "_orig_mod.", "model.")
# The network of a normalised model is its "model".
_INNER = "model."
_COUNTER = "num_batches_tracked"
_NORMALISERS = {"mu": "sigma", "sigma": "mu", "mean": "std", "std": "mean"}
# Edge-popup's scores of each weight, which a forward pass does not read.
_SCORES = "scores"


@dataclass(frozen=True)
class Arrangement:
    """A file's tensors by the network's keys.

    Attributes:
        state: what is to be loaded.
        kept: normalisation of the network that the file lacks.
        dropped: redundant keys of the file.
        misfits: number of keys that are missing, unexpected or of another shape.
        converted: whether timm converted the keys of an older version.
    """

    state: dict[str, Tensor]
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    misfits: int = 0
    converted: bool = False

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the user should know about the match."""
        said = []
        if self.kept:
            said.append(f"the file has no {', '.join(self.kept)}: the library's own are used")
        if self.dropped:
            listed = ", ".join(shown(key) for key in self.dropped[:3])
            more = ", ..." if len(self.dropped) > 3 else ""
            said.append(f"left out {len(self.dropped)} of the file's tensors: {listed}{more}")
        if self.converted:
            said.append("the file's keys are those of an older timm, which timm has converted")
        return tuple(said)


def fit_published(
    network: nn.Module, state: dict[str, Tensor], source: str
) -> tuple[Arrangement, tuple[str, ...]]:
    """Load a published file's state dict into its network; also returns remarks.

    Every key and shape must fit, except what RobustBench's own loader allows: wrappers before the
    keys, a normalisation that only the network has, copies of tensors under second names.

    Raises:
        CheckpointError: the weights are of another network.
    """
    arranged = arrange(network, state)
    try:
        precision = fit(network, arranged.state, source)
    except CheckpointError as error:
        raise another(error.message, "") from error
    return arranged, (*arranged.remarks, *precision)


def arrange(network: nn.Module, state: dict[str, Tensor]) -> Arrangement:
    """The arrangement with the fewest misfits, the first of several."""
    ways = [_judged(network, state, names) for names in _spellings(state)]
    if all(way.misfits for way in ways) and (other := _converted(network, state)) is not None:
        ways = [_judged(network, other, {key: key for key in other}, converted=True), *ways]
    return min(ways, key=lambda way: way.misfits)


def _spellings(keys: Mapping[str, object]) -> Iterator[dict[str, str]]:
    """Network's key to the file's: as it is, then without one wrapper after another."""
    names = {key: key for key in keys}
    while True:
        yield names
        yield {_INNER + name: key for name, key in names.items()}
        wrapper = next((w for w in _WRAPPERS if any(name.startswith(w) for name in names)), None)
        if wrapper is None:
            return
        bare = {name.removeprefix(wrapper): key for name, key in names.items()}
        if len(bare) < len(names):  # two keys would become one
            return
        names = bare


def _judged(
    network: nn.Module, state: dict[str, Tensor], names: dict[str, str], converted: bool = False
) -> Arrangement:
    own = {key: value for key, value in network.state_dict().items() if torch.is_tensor(value)}
    parameters = {key for key, _ in network.named_parameters(remove_duplicate=False)}
    shared = {name: state[key] for name, key in names.items() if name in own}
    differing = sum(shared[name].shape != own[name].shape for name in shared)
    kept, missing = [], 0
    for name in own.keys() - shared.keys():
        parent, dot, last = name.rpartition(".")
        # With half a normalisation in the file, the other half is missing.
        alone = f"{parent}{dot}{_NORMALISERS.get(last, '')}" not in shared
        if last in _NORMALISERS and alone and name not in parameters:
            kept.append(name)
        elif not name.endswith(_COUNTER):
            missing += 1
    rest = {name: state[key] for name, key in names.items() if name not in own}
    if differing or missing:
        extra = list(rest)
    else:
        buffers = [value for _, value in network.named_buffers()]
        extra = [
            name for name, value in rest.items() if not _says_nothing(name, value, shared, buffers)
        ]
    loaded = {
        **shared,
        **{name: own[name] for name in kept},
        **{name: rest[name] for name in extra},
    }
    return Arrangement(
        loaded,
        tuple(sorted(kept)),
        tuple(names[name] for name in rest if name not in extra),
        differing + missing + len(extra),
        converted,
    )


def _says_nothing(
    name: str, value: Tensor, shared: dict[str, Tensor], buffers: list[Tensor]
) -> bool:
    """Whether an unexpected tensor copies an expected one, or a forward pass does not read it."""
    parent, _, last = name.rpartition(".")
    weight = shared.get(f"{parent}.weight")
    if last == _COUNTER or (last == _SCORES and weight is not None and weight.shape == value.shape):
        return True
    if any(value.shape == other.shape and torch.equal(value, other) for other in shared.values()):
        return True
    return last.removeprefix("new_") in _NORMALISERS and any(
        value.numel() == other.numel()
        and torch.allclose(value.flatten().float(), other.flatten().float(), atol=1e-6)
        for other in buffers
    )


def _converted(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """The state dict after timm's own conversion of older keys, where the network is timm's."""
    inner = getattr(network, _INNER.rstrip("."), network)
    convert = getattr(sys.modules.get(type(inner).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        return None
    *_, names, _ = _spellings(state)
    try:
        found = convert({name: state[key] for name, key in names.items()}, inner)
    except Exception:  # the library's code was given another network's file
        return None
    prefix = "" if inner is network else _INNER
    return {prefix + name: value for name, value in found.items() if torch.is_tensor(value)}
