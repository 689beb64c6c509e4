"""Weights that a state dict holds in parts: pruned, weight-normed and spectrally normed ones.

The parts are found by names and shapes, without torch; :func:`compute` computes the weight as the
network would in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from robaudit.checkpoints.architectures.architecture import Shapes
from robaudit.checkpoints.wrapping import Unwrapped, unwrappings

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SplitWeight:
    """A weight, and the file's keys that it is computed from.

    Attributes:
        name: key of the weight.
        kind: how it is computed.
        keys: ``pruned`` the weight and its mask; ``weight norm`` length and direction; ``spectral
            norm`` the weight and its left and right singular vectors.
    """

    name: str
    kind: Literal["pruned", "weight norm", "spectral norm"]
    keys: tuple[str, ...]


def parts(shapes: Shapes) -> tuple[SplitWeight, ...]:
    """The weights that a state dict holds in parts.

    >>> parts({"fc.weight_orig": (2, 3), "fc.weight_mask": (2, 3), "fc.bias": (2,)})
    (SplitWeight(name='fc.weight', kind='pruned', keys=('fc.weight_orig', 'fc.weight_mask')),)
    """
    found = (part for key in shapes if (part := _part(key, shapes)) is not None)
    return tuple(part for part in found if part.name not in shapes)


def effective_shapes(shapes: Shapes, found: tuple[SplitWeight, ...]) -> Shapes:
    """The shapes with each weight in place of its parts."""
    first = {part.keys[-1] if part.kind == "weight norm" else part.keys[0]: part for part in found}
    gone = {key for part in found for key in part.keys}
    made = {}
    for key, shape in shapes.items():
        if key in first:
            made[first[key].name] = shape
        elif key not in gone:
            made[key] = shape
    return made


def readings(shapes: Shapes) -> tuple[tuple[Unwrapped, ...], tuple[SplitWeight, ...]]:
    """The ways to unwrap a state dict, and the weights that have to be computed from parts.

    The file's own keys come first: a network that prunes has them itself.
    """
    found = parts(shapes)
    if not found:
        return unwrappings(shapes), ()
    made = effective_shapes(shapes, found)
    return (*unwrappings(shapes), *unwrappings(made)), found


def compute(state: Mapping[str, Tensor], part: SplitWeight) -> Tensor:
    """The weight, in float64 in between.

    ``pruned``: ``w * mask``; ``weight norm``: ``g v / ||v||`` (T. Salimans and D. Kingma, NeurIPS
    2016), the norm over all dimensions in which ``g`` has one entry; ``spectral norm``:
    ``W / (u^T W v)`` (T. Miyato et al., ICLR 2018) with the vectors of training.
    """
    values = [state[key].double() for key in part.keys]
    if part.kind == "pruned":
        made = values[0] * values[1]
    elif part.kind == "weight norm":
        g, v = values
        over = [i for i in range(v.ndim) if g.ndim != v.ndim or g.shape[i] == 1]
        made = v * g / v.square().sum(over, keepdim=True).sqrt() if over else v * g / v.abs()
    else:
        weight, u, right = values
        rows = weight.flatten(1)
        if len(u) != len(rows):  # of a transposed convolution, whose outputs come second
            rows = weight.transpose(0, 1).flatten(1)
        made = weight / (u @ rows @ right)
    return made.to(state[part.keys[0]].dtype)


def remarks(state: Mapping[str, Tensor], found: tuple[SplitWeight, ...]) -> tuple[str, ...]:
    """What the user should know of the computed weights."""
    said = []
    pruned = [part for part in found if part.kind == "pruned"]
    if pruned:
        masks = [state[part.keys[1]] for part in pruned]
        zero = sum(int((mask == 0).sum()) for mask in masks)
        count = sum(mask.numel() for mask in masks)
        said.append(
            f"the file is pruned: {zero} of {count} weights in {len(pruned)} tensors are masked, "
            "and are zero here"
        )
    for kind in ("weight norm", "spectral norm"):
        n = sum(part.kind == kind for part in found)
        if n:
            said.append(f"{n} weights are stored with {kind}, and were computed from their parts")
    return tuple(said)


def _part(key: str, shapes: Shapes) -> SplitWeight | None:
    if key.endswith("_orig"):
        name = key.removesuffix("_orig")
        mask, u, v = (f"{name}_{ending}" for ending in ("mask", "u", "v"))
        if shapes.get(mask) == shapes[key]:
            return SplitWeight(name, "pruned", (key, mask))
        return SplitWeight(name, "spectral norm", (key, u, v)) if {u, v} <= shapes.keys() else None
    if key.endswith("_g"):
        name = key.removesuffix("_g")
        return (
            SplitWeight(name, "weight norm", (key, f"{name}_v")) if f"{name}_v" in shapes else None
        )
    owner, parametrized, rest = key.rpartition("parametrizations.")
    name, _, leaf = rest.rpartition(".")
    base = f"{owner}parametrizations.{name}"
    if not parametrized or "." in name:
        return None
    others = {k for k in shapes if k.startswith(f"{base}.")} - {key}
    if leaf == "original0" and others == {f"{base}.original1"}:
        return SplitWeight(f"{owner}{name}", "weight norm", (key, f"{base}.original1"))
    if leaf == "original" and others == {f"{base}.0._u", f"{base}.0._v"}:
        return SplitWeight(f"{owner}{name}", "spectral norm", (key, f"{base}.0._u", f"{base}.0._v"))
    return None
