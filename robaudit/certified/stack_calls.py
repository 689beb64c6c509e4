"""Reads stacks of activations in front of the batch, as of an ensemble's logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from robaudit.certified.exported import refusal
from robaudit.certified.reader import MIXED, Activation, Handler, Reader, Stack


def stack(reader: Reader, parts: Sequence[Any], dim: int) -> Activation | Stack:
    nodes = [reader.activation(part) for part in parts]
    at = dim % (len(reader.shape(nodes[0])) + 2)
    if at == 0:
        return Stack(tuple(nodes))
    return reader.rearranged(lambda *v: torch.stack(v, at), *nodes)


def _select(reader: Reader, members: Stack, dim: int, index: int) -> Activation:
    _only_members(dim)
    return members.parts[index]


def _sum(reader: Reader, members: Stack, dims: Any, keep: bool, *_: Any) -> Activation:
    _only_members(dims, keep)
    return reader.weighted(members.parts, [None] * len(members.parts))


def _mean(reader: Reader, members: Stack, dims: Any, keep: bool, *_: Any) -> Activation:
    _only_members(dims, keep)
    count = len(members.parts)
    return reader.weighted(members.parts, [1 / count] * count)


def _largest(reader: Reader, members: Stack, dims: Any, keep: bool) -> Activation:
    _only_members(dims, keep)
    return Activation(reader.build.largest([part.index for part in members.parts]))


def _largest_of(reader: Reader, members: Stack, *rest: Any) -> tuple[Activation, None]:
    return _largest(reader, members, *rest), None


def _only_members(dims: Any, keep: bool = False) -> None:
    if dims not in (0, [0]) or keep:
        raise refusal(MIXED)


STACKED: Mapping[str, Handler] = {
    "amax": _largest,
    "max": _largest_of,
    "mean": _mean,
    "select": _select,
    "sum": _sum,
}
