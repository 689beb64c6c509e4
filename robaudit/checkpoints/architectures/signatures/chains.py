"""Reads a state dict as a chain: layers with weights one after another, and the room between them.

The order is the file's, or, since some files sort their keys, that of the numbers in the names if
the file's gives no chain. Names that are indices of one ``Sequential`` tell by their gaps how many
layers without weights are in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal

from robaudit.checkpoints.architectures.architecture import Shapes

MAX_LAYERS = 48
_MAX_ROOM = 32
# Channels of images, including multispectral ones.
_MOST_CHANNELS = 16
# Larger than any real layer.
_WIDEST = 1 << 20
_LEAVES = frozenset({"weight", "bias", "running_mean", "running_var", "num_batches_tracked"})
_BASIC = frozenset({"conv1", "conv2", "bn1", "bn2"})
_WAYS = {f"{way}.{i}": way for way in ("shortcut", "downsample") for i in (0, 1)}
_PATH = frozenset(f"path_b.{i}" for i in range(5)) | frozenset({"path_a.1", "path_a.2"})


@dataclass(frozen=True)
class ChainLayer:
    """A layer with weights.

    Attributes:
        name: its keys' path.
        kind: what it is; ``block`` is a residual one.
        inputs, outputs: channels or features; the same for ``norm``.
        kernel: of a convolution or a block.
        token: how :mod:`..tokens` writes it, with ``{}`` for a convolution's stride and padding and
            for a block's stride.
        strides: those it may have.
    """

    name: str
    kind: Literal["conv", "norm", "linear", "block"]
    inputs: int
    outputs: int
    token: str
    kernel: int = 0
    strides: tuple[int, ...] = (1,)


def chain(shapes: Shapes) -> list[ChainLayer]:
    """The layers in the order in which they are applied; none if the keys do not form a chain."""
    if any(side > _WIDEST for shape in shapes.values() for side in shape):
        return []
    found = _layers(shapes)
    if not found or len(found) > MAX_LAYERS or any(re.search(r"\d{5}", n.name) for n in found):
        return []
    for order in (found, sorted(found, key=lambda layer: _natural(layer.name))):
        ordered = _norms_behind(order)
        if _holds(ordered) and max(room or 0 for room in rooms(ordered)) <= _MAX_ROOM:
            return ordered
    return []


def rooms(layers: Sequence[ChainLayer]) -> list[int | None]:
    """How many layers without weights come before each; ``None`` if the names do not tell."""
    apart = [_apart(a.name, b.name) for a, b in pairwise(layers)]
    # A ModuleList counts its layers without a gap, whatever forward does between them.
    between = [
        room
        for room, a, b in zip(apart, layers, layers[1:], strict=False)
        if room is not None and b.kind != "norm" and a.kind != "block"
    ]
    listed = bool(between) and not any(between)
    first = layers[0].name.partition(".")[0]
    leading = int(first) if first.isdecimal() and not listed else None
    return [leading, *((None,) * len(apart) if listed else apart)]


def _apart(one: str, other: str) -> int | None:
    for a, b in zip(one.split("."), other.split("."), strict=False):
        if a != b:
            counted = a.isdecimal() and b.isdecimal() and int(b) > int(a)
            return int(b) - int(a) - 1 if counted else None
    return None


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _layers(shapes: Shapes) -> list[ChainLayer]:
    paths = dict.fromkeys(key.rpartition(".")[0] for key in shapes)
    if any(key.rpartition(".")[2] not in _LEAVES for key in shapes):
        return []
    blocks = {block for path in paths if (block := _block_of(path)) is not None}
    found: dict[str, ChainLayer | None] = {}
    for path in paths:
        name = _block_of(path) or path
        if name not in found:
            found[name] = _block(name, shapes) if name in blocks else _layer(name, shapes)
    return [layer for layer in found.values() if layer] if all(found.values()) else []


def _block_of(path: str) -> str | None:
    """The name of the residual block that contains a layer."""
    for ending in (*_BASIC, *_WAYS, *_PATH):
        name = path.removesuffix(f".{ending}")
        if name != path and name.rpartition(".")[2].isdecimal():
            return name
    return None


def _layer(name: str, shapes: Shapes) -> ChainLayer | None:
    shape = shapes.get(f"{name}.weight", ())
    bias = "" if f"{name}.bias" in shapes else "n"
    if prod(shape) < 1 or len(shape) not in (1, 2, 4):
        return None
    if len(shape) == 1:
        return ChainLayer(name, "norm", shape[0], shape[0], f"norm{shape[0]}")
    if len(shape) == 2:
        return ChainLayer(name, "linear", shape[1], shape[0], f"linear{shape[1]}x{shape[0]}{bias}")
    token = f"conv{shape[1]}x{shape[0]}k{shape[2]}{{}}{bias}"
    kernel = shape[2] if shape[2] == shape[3] else 0
    return ChainLayer(name, "conv", shape[1], shape[0], token, kernel, (1, 2)) if kernel else None


def _block(name: str, shapes: Shapes) -> ChainLayer | None:
    path = f"{name}.path_b.0.weight" in shapes
    first = shapes.get(f"{name}.path_b.0.weight" if path else f"{name}.conv1.weight", ())
    if prod(first) < 1 or len(first) != 4 or first[2] != first[3]:
        return None
    ways = ("path_a.1",) if path else ("shortcut.0", "downsample.0")
    way = next((way for way in ways if f"{name}.{way}.weight" in shapes), "")
    norm = f"{name}.path_b.1.weight" if path else f"{name}.bn1.weight"
    bias = f"{name}.path_b.0.bias" if path else f"{name}.conv1.bias"
    flags = (
        ("b" if norm in shapes else "")
        + ("" if bias in shapes else "n")
        + ("c" if way else "")
        + ("d" if way.startswith("down") else "")
    )
    outputs, inputs, kernel = first[:3]
    if not way and inputs != outputs:
        return None
    # A shortcut without weights keeps the size; one that keeps the channels is there to shrink it.
    strides = (1,) if not way else (2, 1) if inputs != outputs else (2,)
    token = f"{'path' if path else 'res'}{inputs}x{outputs}k{kernel}{{}}{flags}"
    return ChainLayer(name, "block", inputs, outputs, token, kernel, strides)


def _norms_behind(layers: Sequence[ChainLayer]) -> list[ChainLayer]:
    """Convolutions before linear layers, and each norm behind the layer that it belongs to."""
    mains = [layer for layer in layers if layer.kind != "norm"]
    mains.sort(key=lambda layer: layer.kind == "linear")
    norms = [layer for layer in layers if layer.kind == "norm"]
    if _follow(layers, norms):
        return list(layers)
    if any(layer.name.isdecimal() for layer in layers):
        return []  # a Sequential's order is its numbers'
    behind: dict[str, list[ChainLayer]] = {main.name: [] for main in mains}
    for norm in norms:
        free = [m for m in mains if m.outputs == norm.outputs and not behind[m.name]]
        same = [m for m in free if _numbers(m.name) == _numbers(norm.name)]
        if not (same or free):
            return []
        behind[(same or free)[0].name].append(norm)
    return [one for main in mains for one in (main, *behind[main.name])]


def _follow(layers: Sequence[ChainLayer], norms: Iterable[ChainLayer]) -> bool:
    before = {b.name: a for a, b in pairwise(layers)}
    mains = [layer.kind == "linear" for layer in layers if layer.kind != "norm"]
    return mains == sorted(mains) and all(
        n.name in before and before[n.name].kind != "norm" and before[n.name].outputs == n.outputs
        for n in norms
    )


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def _holds(layers: Sequence[ChainLayer]) -> bool:
    """Whether each layer takes the outputs of the one before; a flattened map is a square."""
    if not layers or layers[-1].kind != "linear":
        return False
    before = layers[0]
    if before.kind != "linear" and before.inputs > _MOST_CHANNELS:  # the rest of a larger network
        return False
    for layer in layers[1:]:
        enters = layer.kind == "linear" and before.kind != "linear"
        if layer.inputs % before.outputs if enters else layer.inputs != before.outputs:
            return False
        before = layer
    return True
