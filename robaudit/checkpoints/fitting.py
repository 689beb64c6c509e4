"""Loads a state dict into a network, strictly: every key, shape and kind of number must match."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from robaudit.checkpoints.architectures.sketching import sketch
from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.wrapping import Unwrapped
from robaudit.errors import CheckpointError, first_line

_ADVICE = "Check --arch: the network must be the one the weights were trained in."
# Counts batches during training; evaluation does not read it, and files before torch 0.4.1 lack it.
_COUNTER = "num_batches_tracked"


def nearest(network: nn.Module, stages: Sequence[Unwrapped]) -> Unwrapped:
    """The stage of unwrapping whose keys differ least from the network's own."""
    own = {key for key in network.state_dict() if not key.endswith(_COUNTER)}

    def differing(stage: Unwrapped) -> int:
        return len(own ^ {key for key in stage.names if not key.endswith(_COUNTER)})

    return min(stages, key=differing)


def assemble(
    build: Callable[[], nn.Module], state: dict[str, Tensor], source: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a network around ``state``; returns it, in float32, and the remarks of :func:`fit`.

    The network is built on the meta device and takes the tensors of ``state`` without a copy: sizes
    that a file claims cost nothing until every key and shape is checked, and several networks may
    share the weights. Only a network that computes tensors while it is built, and does not save
    them, is built again in memory.
    """
    network = sketch(build)
    check_fit(network, state, source)
    own = network.state_dict()
    counters = {
        key: torch.zeros((), dtype=torch.long)
        for key in own
        if key.endswith(_COUNTER) and key not in state
    }
    remarks = _precision_remarks(state, own)
    taken = {
        key: value.to(own[key].dtype) if key in own and not own[key].is_floating_point() else value
        for key, value in {**state, **counters}.items()
    }
    network.load_state_dict(_versioned(taken, own), strict=True, assign=True)
    if _unfinished(network):
        with torch.random.fork_rng(devices=[]):
            network = build()
        fit(network, state, source)
    return network.float(), remarks


def _versioned(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """``state`` as the network's own code would have saved it: some networks ask for versions."""
    versioned = OrderedDict(state)
    versioned._metadata = getattr(own, "_metadata", {})  # type: ignore[attr-defined]
    return versioned


def _unfinished(network: nn.Module) -> bool:
    """Whether anything but the state dict was left without memory."""
    held = [value for module in network.modules() for value in vars(module).values()]
    tensors = [value for value in held if torch.is_tensor(value)]
    return any(t.is_meta for t in (*network.parameters(), *network.buffers(), *tensors))


def fit(network: nn.Module, state: dict[str, Tensor], source: str) -> tuple[str, ...]:
    """Load ``state`` into ``network``; returns remarks on numbers that changed their precision.

    Raises:
        CheckpointError: a key is missing or unexpected, a shape differs, or integers or complex
            numbers would become weights.
    """
    check_fit(network, state, source)
    own = network.state_dict()
    counters = {key: own[key] for key in own if key.endswith(_COUNTER) and key not in state}
    remarks = _precision_remarks(state, own)
    try:
        network.load_state_dict(_versioned({**state, **counters}, own), strict=True)
    except Exception as error:  # a network may have loading code of its own
        raise CheckpointError(
            f"{source}: the network does not take the weights: {shown(first_line(error), 200)}",
            _ADVICE,
        ) from error
    return remarks


def _precision_remarks(state: dict[str, Tensor], own: dict[str, Tensor]) -> tuple[str, ...]:
    remarks = {
        f"weights stored as {_name(state[key])} are computed in {_name(own[key])}"
        for key in state
        if own[key].is_floating_point() and own[key].dtype != state[key].dtype
    }
    return tuple(sorted(remarks))


def check_fit(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Raise the error :func:`fit` would, without loading; the network may be on the meta device."""
    own = {key: value for key, value in network.state_dict().items() if torch.is_tensor(value)}
    missing = [key for key in own if key not in state and not key.endswith(_COUNTER)]
    unexpected = [key for key in state if key not in own]
    differing = [key for key in state if key in own and state[key].shape != own[key].shape]
    if missing or unexpected:
        parts = [
            f"{len(keys)} {kind} ({', '.join(shown(key) for key in keys[:3])}"
            + (", ...)" if len(keys) > 3 else ")")
            for kind, keys in (("missing", missing), ("unexpected", unexpected))
            if keys
        ]
        raise CheckpointError(
            f"{source} does not fit the architecture: of {len(own)} keys {', '.join(parts)}"
            + (f"; {_shapes(differing, state, own)}" if differing else ""),
            _ADVICE,
        )
    if differing:
        raise CheckpointError(
            f"{source} does not fit the architecture: {_difference(differing, state, own)}",
            _ADVICE,
        )
    for key, value in state.items():
        if own[key].is_floating_point() and not value.is_floating_point():
            raise CheckpointError(
                f"{source}: {shown(key)} holds {_name(value)}, the network's weights are "
                f"{_name(own[key])}",
                "Quantised weights cannot be audited: use the checkpoint before quantisation.",
            )


def _difference(differing: list[str], state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    first = {(state[key].shape[:1], own[key].shape[:1]) for key in differing}
    rest_same = all(state[key].shape[1:] == own[key].shape[1:] for key in differing)
    matrices = [key for key in state if state[key].ndim == 2]
    if rest_same and len(first) == 1 and matrices and matrices[-1] in differing:
        head = differing[0]
        return f"the file has {state[head].shape[0]} classes, the architecture {own[head].shape[0]}"
    return _shapes(differing, state, own)


def _shapes(differing: list[str], state: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    shapes = [
        f"{shown(key)} is {_shape(state[key])} in the file and {_shape(own[key])} in the network"
        for key in differing[:3]
    ]
    return f"{len(differing)} shapes differ: {'; '.join(shapes)}"


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"


def _name(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
