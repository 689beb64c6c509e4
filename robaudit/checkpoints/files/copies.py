"""State dicts of a file, and the averaged copies that a state dict may hold. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Kind = Literal["raw", "ema", "swa"]
KINDS: tuple[Kind, ...] = ("raw", "ema", "swa")

# First parts of the keys of an averaged copy.
_COPIES: Mapping[str, Kind] = {
    **dict.fromkeys(("ema", "ema_model", "model_ema", "ema_net", "net_ema"), "ema"),
    **dict.fromkeys(("averaged_model", "module_ema", "ema_network", "_ema_model"), "ema"),
    **dict.fromkeys(("swa", "swa_model", "model_swa"), "swa"),
    "teacher": "raw",
}
_COUNTERS = frozenset({"n_averaged", "initted", "step", "decay", "num_updates"})
_MAX_WRAPPERS = 3


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
    kind: Kind = "raw"
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
