"""The state dicts in a file, the averaged copies in a state dict, and the choice. No torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, get_args

from robaudit.checkpoints.files.display import shown
from robaudit.errors import CheckpointError, UsageError
from robaudit.request import Copy

KINDS: tuple[Copy, ...] = get_args(Copy)

# First parts of the keys of an averaged copy.
_COPIES: Mapping[str, Copy] = {
    **dict.fromkeys(("ema", "ema_model", "model_ema", "ema_net", "net_ema"), "ema"),
    **dict.fromkeys(("averaged_model", "module_ema", "ema_network", "_ema_model"), "ema"),
    **dict.fromkeys(("swa", "swa_model", "model_swa"), "swa"),
    "teacher": "raw",
}
_COUNTERS = frozenset({"n_averaged", "initted", "step", "decay", "num_updates"})
_MAX_WRAPPERS = 3


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


@dataclass(frozen=True)
class Member:
    """One state dict of a file.

    Attributes:
        path: where it is: ``""`` for the whole file, ``state_dict``, ``model[0]``.
        tensors: by name, in the file's order.
        kind: the weights as trained (``raw``), or an average of them (``ema``, ``swa``).
        unreadable: labels of its entries that are tensors which cannot be read, by name.
        module: class of the whole module that it was read from.
        guessed: its name is not one that training scripts usually use.
        aside: it is probably not the network's; chosen only by name.
    """

    path: str
    tensors: Mapping[str, Any]
    kind: Copy = "raw"
    unreadable: Mapping[str, str] = field(default_factory=dict)
    module: str | None = None
    guessed: bool = False
    aside: bool = False


def copies(member: Member) -> tuple[Member, ...]:
    """A state dict that holds a network twice, as two; any other as itself.

    An averaged copy is recognised by its keys: ``ema_model.conv.weight`` beside
    ``online_model.conv.weight``, ``model.conv.weight`` or ``conv.weight``. Keys stay as they are.

    >>> both = {"online_model.w": 1, "ema_model.w": 2, "step": 3}
    >>> [(m.path, m.kind, list(m.tensors)) for m in copies(Member("", both))]
    [('online_model', 'raw', ['online_model.w', 'step']), ('ema_model', 'ema', ['ema_model.w'])]
    """
    outer = ""
    for _ in range(_MAX_WRAPPERS + 1):
        inner = {name: name.removeprefix(outer) for name in member.tensors}
        groups = _groups(inner.values())
        split = {first: _twin(first, groups, inner.values()) for first in _COPIES}
        found = {first: twin for first, twin in split.items() if twin is not None}
        if found:
            return _split(member, inner, found)
        if len(groups) != 1 or not all("." in name for name in inner.values()):
            break
        outer += next(iter(groups)) + "."
    return (member,)


def _split(
    member: Member, inner: Mapping[str, str], found: Mapping[str, str]
) -> tuple[Member, ...]:
    def under(path: str) -> str:
        return f"{member.path}.{path}" if member.path and path else member.path or path

    averaged = tuple(f"{first}." for first in found)
    rest = {k: v for k, v in member.tensors.items() if not inner[k].startswith(averaged)}
    parts = [replace(member, path=under(next(iter(found.values()))), tensors=rest)]
    for first in found:
        own = {k: v for k, v in member.tensors.items() if inner[k].startswith(f"{first}.")}
        kind = _COPIES[first] if member.kind == "raw" else member.kind
        parts.append(replace(member, path=under(first), tensors=own, kind=kind))
    return tuple(parts)


def _groups(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        first, _, rest = name.partition(".")
        if rest:
            groups.setdefault(first, []).append(rest)
    return groups


def _twin(first: str, groups: Mapping[str, list[str]], names: Iterable[str]) -> str | None:
    """The name of the network that ``first`` is a copy of, ``""`` for the bare keys."""
    if first not in groups:
        return None
    copy = _bare(groups[first])
    others = {other: _bare(rest) for other, rest in groups.items() if other not in _COPIES}
    others[""] = _bare(name for name in names if name.partition(".")[0] not in _COPIES)
    for other, keys in others.items():
        # A copy may leave the buffers out.
        if copy and copy <= keys and 2 * len(copy) >= len(keys):
            return other
    return None


def _bare(names: Iterable[str]) -> frozenset[str]:
    return frozenset(
        bare
        for name in names
        if (bare := name.removeprefix("module.")).rpartition(".")[2] not in _COUNTERS
    )


StateOf = Callable[[Any, str], Member | None]


def find_members(tree: Any, state_of: StateOf) -> tuple[Member, ...]:
    """All state dicts in a file, the default choice first.

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
    """The chosen state dict, and a remark if there are several.

    Without ``member`` and ``weights``, weights as trained are preferred to averaged ones, ``last``
    to ``best`` (as in RobustBench), and the first of a list to the others.

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
    """Whether it holds only scalars, such as an accuracy beside the weights."""
    return all(math.prod(tensor.shape) <= 1 for tensor in member.tensors.values())


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _listed(members: Iterable[Member]) -> str:
    names = [repr(shown(member.path or "the whole file")) for member in members]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
