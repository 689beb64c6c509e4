"""The state dicts in a file, and the choice among them. No torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from robaudit.checkpoints.files.copies import KINDS, Member, copies
from robaudit.checkpoints.files.display import shown
from robaudit.errors import CheckpointError, UsageError


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# In the order of preference.
_RAW = _words(
    "state_dict model_state_dict model net network weights params last final best model_state "
    "net_state_dict module online_model student teacher"
)
_EMA = _words(
    "ema ema_state_dict state_dict_ema model_ema ema_model ema_model_state_dict "
    "model_ema_state_dict ema_net net_ema params_ema ema_state averaged_model"
)
_SWA = _words("swa swa_state_dict swa_model model_swa swa_model_state_dict swa_best")
# Wang et al. (2023) call the averaged weights the model's, and the model's the unaveraged.
_UNAVERAGED = "unaveraged_model_state_dict"
_NAMES = (*_RAW, _UNAVERAGED, *_EMA, *_SWA)
_NEVER = _words(
    "optimizer optim opt scheduler lr_scheduler amp scaler callbacks loops optimizer_states "
    "lr_schedulers optimizer_state_dict attacker grad_scaler rng_state args config "
    "hyper_parameters"
)
_DEPTH = 4
_MAX_MEMBERS = 64
_SHOWN = 8


StateOf = Callable[[Any, str], Member | None]


def find_members(tree: Any, state_of: StateOf) -> tuple[Member, ...]:
    """Every state dict in what a file holds, the one to take first.

    Looks under the names that training scripts use, four levels deep, never into optimisers. State
    dicts under other names come last, as ``aside``, unless there is no other.

    Args:
        tree: the file's object: dictionaries and lists with tensors in them.
        state_of: the state dict that a dictionary or a module is by itself, if it is one.
    """
    found = list(islice(_named(tree, "", _DEPTH, state_of, set()), _MAX_MEMBERS))
    if all(not member.path and _is_tiny(member) for member in found):
        found = list(islice(_unnamed(tree, "", _DEPTH, state_of, set()), _MAX_MEMBERS)) or found
    split = [copy for member in found for copy in copies(member)]
    paths = [member.path for member in found]
    beside = [
        replace(member, aside=True)
        for member in islice(_unnamed(tree, "", _DEPTH, state_of, set()), _MAX_MEMBERS)
        if not any(member.path == path or member.path.startswith(f"{path}.") for path in paths)
    ]
    return (*sorted(split, key=lambda member: KINDS.index(member.kind)), *beside)


def choose_member(
    members: Sequence[Member], source: str, *, member: str | None, weights: str | None
) -> tuple[Member, tuple[str, ...]]:
    """The state dict to take, and a remark where there was a choice.

    Without ``member`` and ``weights``, weights as trained come before averaged ones, ``last``
    before ``best`` (as RobustBench takes them), and the first of a list before the others.

    Raises:
        UsageError: there is no such state dict.
        CheckpointError: none is preferred over the others.
    """
    everything, members = members, [m for m in members if not m.aside]
    places = _listed(members)
    if member is not None:
        chosen = [m for m in everything if m.path == member]
        if not chosen:
            near = difflib.get_close_matches(member, [m.path for m in members], 1, 0.4)
            hint = f"Did you mean --member {shown(near[0])}?" if near else "Name one of them."
            raise UsageError(f"{source}: there is no member {shown(member)!r}, but {places}", hint)
        return chosen[0], ()
    if weights is not None:
        if weights not in KINDS:
            raise UsageError(
                f"--weights {shown(weights)}: there are no such weights",
                f"Give {', '.join(KINDS)}.",
            )
        chosen = [m for m in members if m.kind == weights]
        if not chosen:
            raise UsageError(
                f"{source}: there are no {weights} weights in the file; it has {places}",
                "Name the ones you mean with --member.",
            )
    else:
        chosen = list(members)
    taken = chosen[0]
    if len(members) == 1:
        return taken, ()
    if weights is None and taken.guessed:
        raise CheckpointError(
            f"{source}: the file holds {len(members)} sets of tensors ({places})",
            "Name the one that is the network with --member.",
        )
    return taken, (
        f"the file holds {len(members)} state dicts ({places}); "
        f"{taken.path or 'the whole file'!r} is taken; --member or --weights names another",
    )


def _named(tree: Any, path: str, depth: int, state_of: StateOf, seen: set[int]) -> Iterator[Member]:
    """State dicts under known names; each object once, since a pickle can hold one in itself."""
    if id(tree) in seen or depth < 0:
        return
    if isinstance(tree, list | tuple):
        seen.add(id(tree))
        for place, entry in enumerate(tree[:_MAX_MEMBERS]):
            yield from _named(entry, f"{path}[{place}]", depth - 1, state_of, seen)
        return
    inside = False
    if isinstance(tree, dict):
        seen.add(id(tree))
        for key in _NAMES:
            if key in tree:
                for member in _named(tree[key], _join(path, key), depth - 1, state_of, seen):
                    inside = True
                    yield _of_kind(member, key, tree)
    if not inside:
        own = state_of(tree, path)
        if own is not None:
            yield own


def _of_kind(member: Member, key: str, beside: Mapping[Any, Any]) -> Member:
    if key in _SWA:
        return replace(member, kind="swa")
    averaged = key in _EMA or (key == "model_state_dict" and _UNAVERAGED in beside)
    return replace(member, kind="ema") if averaged else member


def _unnamed(
    tree: Any, path: str, depth: int, state_of: StateOf, seen: set[int]
) -> Iterator[Member]:
    if not isinstance(tree, dict) or id(tree) in seen or depth < 0:
        return
    seen.add(id(tree))
    for key, value in islice(tree.items(), 1000):
        if isinstance(key, str) and key not in _NEVER and len(key) <= 200:
            here = _join(path, key)
            own = None if isinstance(value, list | tuple) else state_of(value, here)
            if own is not None:
                yield replace(own, guessed=True)
            else:
                yield from _unnamed(value, here, depth - 1, state_of, seen)


def _is_tiny(member: Member) -> bool:
    """Whether it is numbers only, such as an accuracy beside the weights."""
    return all(math.prod(tensor.shape) <= 1 for tensor in member.tensors.values())


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _listed(members: Iterable[Member]) -> str:
    names = [repr(shown(member.path or "the whole file")) for member in members]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
