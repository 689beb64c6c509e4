"""A plain ``nn.Sequential``: the numbers of its keys say where layers without weights sit, and the
length of the flattened map says which strides and paddings can have led to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from math import prod
from typing import TypeAlias

from robaudit.checkpoints.architectures.architecture import Arguments, Shapes
from robaudit.checkpoints.architectures.signatures.reading import indexed, side

Layers: TypeAlias = Sequence[tuple[int, tuple[int, ...]]]
"""Index and shape of the layers with weights."""

_SIZES = {1: (28, 32, 8, 64, 16), 3: (32, 28, 64, 96, 224, 8)}
_PADDINGS = {1: (0,), 2: (0, 1), 3: (1, 0), 4: (1, 0, 2), 5: (2, 0, 1), 7: (3, 0)}
"""By kernel, the usual ones first; convolutions of one kernel are taken to share theirs."""

_MAX_LAYERS = 40
_MAX_CONVS = 8
_MAX_FILLINGS = 64
_MAX_SOLUTIONS = 6
_POOLS = ("maxpool", "avgpool")


def sequential_cnn(shapes: Shapes) -> list[Arguments]:
    """A few solutions for each usual size of image, the usual sizes first."""
    weights = indexed(shapes, "", ".weight")
    keys = [k for k in shapes if not k.endswith("num_batches_tracked")]
    stray = any(not key.partition(".")[0].isdecimal() or key.count(".") != 1 for key in keys)
    ranks = [len(shape) for _, shape in weights]
    if stray or not weights or weights[-1][0] > _MAX_LAYERS or ranks[-1] != 2:
        return []
    if any(prod(shape) < 1 for _, shape in weights) or not set(ranks) <= {1, 2, 4}:
        return []
    convs = [shape for _, shape in weights if len(shape) == 4]
    if len(convs) > _MAX_CONVS or any(shape[2] != shape[3] for shape in convs):
        return []
    found: dict[int, dict[str, int]] = {}
    for rank, fillings in enumerate(islice(product(*_gaps(weights)), _MAX_FILLINGS)):
        tokens = _tokens(weights, shapes, fillings)
        for size, layers, cost in _solved(tokens, weights):
            own = found.setdefault(size, {})
            own[layers] = min(own.get(layers, cost + rank), cost + rank)
    kept = {}
    for size in sorted(found):
        best = sorted(found[size], key=found[size].__getitem__)
        kept.update(dict.fromkeys(best[:_MAX_SOLUTIONS]))
    return [{"layers": layers} for layers in kept]


def _gaps(weights: Layers) -> Iterator[Sequence[tuple[str, ...]]]:
    """For the place before each layer with weights, what may fill it."""
    before, seen = -1, 0
    for index, shape in weights:
        missing = index - before - 1
        enters = len(shape) == 2 and seen != 2
        yield _fillings(missing, seen, enters)
        before, seen = index, len(shape)


def _fillings(missing: int, after: int, enters: bool) -> Sequence[tuple[str, ...]]:
    """Layers without weights: ``missing`` of them behind one of rank ``after``."""
    tail = ("flatten",) if enters else ()
    if after == 0:  # at the front, where a normalisation may have been
        idle = ("skip",) * (missing - len(tail))
        padded = [(*idle[1:], "pad12")] if idle and not enters else []
        return [(*idle, *tail), *padded] if missing >= len(tail) else [()]
    if missing == 0:
        return [()]
    if missing == 1:
        return [("relu",), ("flatten",)] if enters else [("relu",)]
    rest = missing - 1 - len(tail)
    if rest == 0 or after == 2:
        return [("relu", *("skip",) * rest, *tail)]
    idle = ("skip",) * (rest - 1)
    pools = (*_POOLS, "globalpool") if enters else _POOLS
    return [("relu", pool, *idle, *tail) for pool in (*pools, "skip")]


def _tokens(
    weights: Layers,
    shapes: Shapes,
    fillings: Sequence[tuple[str, ...]],
) -> list[str]:
    """The layers, strides and paddings still open."""
    tokens: list[str] = []
    for (index, shape), filling in zip(weights, fillings, strict=True):
        tokens += filling
        bias = "" if f"{index}.bias" in shapes else "n"
        if len(shape) == 4:
            tokens.append(f"conv{shape[1]}x{shape[0]}k{shape[2]}{{}}{bias}")
        elif len(shape) == 2:
            tokens.append(f"linear{shape[1]}x{shape[0]}{bias}")
        else:
            tokens.append(f"norm{shape[0]}")
    return tokens


def _solved(tokens: Sequence[str], weights: Layers) -> Iterator[tuple[int, str, int]]:
    """Strides and paddings that lead from a usual image to the first matrix.

    Gives the rank of the image's size, the layers, and how unusual they are.
    """
    kernels = [shape[2] for _, shape in weights if len(shape) == 4]
    if not kernels:
        yield 0, "-".join(tokens), 0
        return
    features = next(shape[1] for _, shape in weights if len(shape) == 2)
    channels = next(shape[1] for _, shape in weights if len(shape) == 4)
    final = side(features, next(s[0] for _, s in reversed(weights) if len(s) == 4))
    distinct = sorted(set(kernels))
    options = [_PADDINGS.get(kernel, (kernel // 2, 0)) for kernel in distinct]
    for rank, size in enumerate(_SIZES.get(channels, _SIZES[3])):
        for paddings in product(*options):
            padding = dict(zip(distinct, paddings, strict=True))
            for strides in _strides(tokens, kernels, padding, size, final):
                own = list(zip(strides, kernels, strict=True))
                text = iter([f"s{stride}p{padding[kernel]}" for stride, kernel in own])
                layers = "-".join(t.format(next(text)) if "{}" in t else t for t in tokens)
                # Even kernels are made for stride 2, and equal ones mostly share theirs.
                unusual = sum(stride != 2 - kernel % 2 for stride, kernel in own)
                mixed = len(set(own)) - len(distinct)
                padded = sum(o.index(p) for o, p in zip(options, paddings, strict=True))
                yield rank, layers, unusual + mixed + 2 * padded


def _strides(
    tokens: Sequence[str],
    kernels: Sequence[int],
    padding: Mapping[int, int],
    size: int,
    final: int,
) -> Iterator[tuple[int, ...]]:
    """Strides with which maps of side ``size`` become ``final``."""
    if size < final or size < 1:
        return
    if not tokens:
        if size == final:
            yield ()
        return
    first, rest = tokens[0], tokens[1:]
    if first.startswith("conv"):
        for stride in (1, 2):
            reach = size + 2 * padding[kernels[0]] - kernels[0]
            if reach >= 0:
                for more in _strides(rest, kernels[1:], padding, reach // stride + 1, final):
                    yield (stride, *more)
    elif first == "globalpool":
        yield from _strides(rest, kernels, padding, 1, final)
    elif first == "pad12":
        yield from _strides(rest, kernels, padding, size + 3, final)
    elif first in _POOLS:
        yield from _strides(rest, kernels, padding, size // 2, final)
    else:
        yield from _strides(rest, kernels, padding, size, final)
