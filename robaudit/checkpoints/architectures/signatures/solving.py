"""Strides, paddings and pools that lead from a usual image to the map that the first linear layer
takes: the likeliest few, by best-first search with the exact remaining cost.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import count, islice, product

from robaudit.checkpoints.architectures.architecture import Image
from robaudit.checkpoints.architectures.signatures.chains import ChainLayer
from robaudit.checkpoints.architectures.signatures.reading import side

SIZES = {1: (28, 32, 8, 64, 16), 3: (32, 28, 64, 56, 96, 224, 8)}
"""Sides of usual images by their channels, the usual first."""

ACT = "relu"
_PADDINGS = {
    1: {0: 0},
    2: {0: 0, 1: 2},
    3: {1: 0, 0: 2},
    4: {1: 0, 0: 1, 2: 6},
    5: {2: 0, 0: 1, 1: 6},
    7: {3: 0, 0: 2},
}
"""Paddings by kernel, with their cost; convolutions with the same kernel share one."""

_MAX_SOLUTIONS = 12
_MAX_TRIED = 64
_MAX_KERNELS = 5
_MAX_PADDINGS = 24
_INFINITE = 1 << 20
_POOLS: Mapping[str, tuple[Callable[[int], int], int]] = {
    "maxpool": (lambda s: s // 2, 1),
    "avgpool": (lambda s: s // 2, 2),
    "maxpool3s2p1": (lambda s: (s - 1) // 2 + 1, 5),
    "maxpool3s2p0": (lambda s: (s - 3) // 2 + 1, 5),
}
"""Side of the map behind a pool, and its cost."""

_State = tuple[int, int, bool]
_Step = tuple[tuple[str, ...], int, bool, int]


def solutions(
    layers: Sequence[ChainLayer], rooms: Sequence[int | None], image: Image | None = None
) -> list[str]:
    """The networks' layers as text, those for the usual sizes of image first.

    Args:
        layers: a chain that ends in a linear layer.
        rooms: how many layers without weights come before each, if that is known.
        image: the one that they take, if that is known.
    """
    if layers[0].kind == "linear":
        tail = _tail(layers, rooms, 1)
        lead = rooms[0] or 0
        before = () if rooms[0] == 0 else (*("skip",) * (lead - 1), "flatten")
        return ["-".join([*before, layers[0].token, *tail])]
    if image is not None and (image[1] != image[2] or image[0] != layers[0].inputs):
        return []
    found: dict[str, None] = {}
    usual = SIZES.get(layers[0].inputs, SIZES[3])
    for size in usual if image is None else [image[1]]:
        ranked: dict[str, int] = {}
        for tokens, cost in _for_size(layers, rooms, size):
            text = "-".join(tokens)
            ranked[text] = min(cost, ranked.get(text, cost))
        best = sorted(ranked, key=ranked.__getitem__)[:_MAX_SOLUTIONS]
        found.update(dict.fromkeys(best))
    return list(found)


def _for_size(
    layers: Sequence[ChainLayer], rooms: Sequence[int | None], size: int
) -> Iterator[tuple[list[str], int]]:
    first = next(i for i, layer in enumerate(layers) if layer.kind == "linear")
    final = side(layers[first].inputs, layers[first - 1].outputs)
    if not final:
        return
    kernels = sorted({layer.kernel for layer in layers[:first] if layer.kind == "conv"})
    if len(kernels) > _MAX_KERNELS:
        return
    options = [_PADDINGS.get(kernel, {kernel // 2: 0, 0: 1}) for kernel in kernels]
    for paddings in islice(product(*options), _MAX_PADDINGS):
        padding = dict(zip(kernels, paddings, strict=True))
        unusual = sum(o[p] for o, p in zip(options, paddings, strict=True))
        tail = _tail(layers, rooms, first + 1)
        for head, cost in _search(layers[: first + 1], rooms, padding, size, final):
            yield [*head, *tail], cost + unusual + _mixture(head)


def _search(
    layers: Sequence[ChainLayer],
    rooms: Sequence[int | None],
    padding: Mapping[int, int],
    size: int,
    final: int,
) -> Iterator[tuple[list[str], int]]:
    """The cheapest ways from an image to the linear layer, by best-first search."""
    goal = len(layers)

    @cache
    def steps(at: int, side: int, pending: bool) -> tuple[_Step, ...]:
        return tuple(_steps(layers, rooms, padding, final, at, side, pending))

    @cache
    def left(at: int, side: int, pending: bool) -> int:
        if at == goal:
            return 0
        ways = (cost + left(at + 1, to, p) for _, to, p, cost in steps(at, side, pending))
        return min(ways, default=_INFINITE)

    order = count()
    start: _State = (0, size, False)
    # Among equal costs the state nearest to the goal first: there may be very many of them.
    heap: list[tuple[int, int, int, int, tuple[str, ...], _State]] = []
    if left(*start) < _INFINITE:
        heap.append((left(*start), 0, next(order), 0, (), start))
    given = 0
    while heap and given < _MAX_TRIED:
        _, _, _, spent, tokens, (at, here, pending) = heapq.heappop(heap)
        if at == goal:
            given += 1
            yield list(tokens), spent
            continue
        for more, to, after, cost in steps(at, here, pending):
            rest = left(at + 1, to, after)
            if rest < _INFINITE:
                total = spent + cost
                state = (at + 1, to, after)
                entry = (total + rest, -at, next(order), total, (*tokens, *more), state)
                heapq.heappush(heap, entry)


def _steps(
    layers: Sequence[ChainLayer],
    rooms: Sequence[int | None],
    padding: Mapping[int, int],
    final: int,
    at: int,
    size: int,
    pending: bool,
) -> Iterator[_Step]:
    """What may come before a layer, and the layer: tokens, side behind it, whether an activation is
    still to come, cost.
    """
    layer, room = layers[at], rooms[at]
    for filling, side_in, cost in _fillings(layers, at, room, size, pending, final):
        acted = ACT in filling
        if layer.kind == "linear":
            if side_in == final:
                yield (*filling, layer.token), final, True, cost
        elif layer.kind == "norm":
            yield (*filling, layer.token), side_in, pending and not acted, cost
        elif layer.kind == "block":
            for stride in layer.strides:
                side_out = (side_in - 1) // stride + 1
                unusual = int(stride != layer.strides[0])
                yield (*filling, layer.token.format(f"s{stride}")), side_out, False, cost + unusual
        else:
            pad = padding[layer.kernel]
            if pad and "pad12" in filling:
                continue
            reach = side_in + 2 * pad - layer.kernel
            # Even kernels are made for stride 2; a stem may have any.
            weight = 1 if layers[at + 1].kind == "block" else 2
            for stride in layer.strides if reach >= 0 else ():
                unusual = weight * (stride != 2 - layer.kernel % 2)
                token = layer.token.format(f"s{stride}p{pad}")
                yield (*filling, token), reach // stride + 1, True, cost + unusual


def _fillings(
    layers: Sequence[ChainLayer], at: int, room: int | None, size: int, pending: bool, final: int
) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Layers without weights before one: tokens, side of the map behind them, cost."""
    kind, enters = layers[at].kind, layers[at].kind == "linear"
    act = (ACT,) if pending else ()
    if at == 0:
        idle = ("skip",) * (room or 0)
        yield idle, size, 0
        if room is None or room > 0:
            yield (*idle[1:], "pad12"), size + 3, 4
        return
    if kind == "norm":
        if not room:
            yield (), size, 0
        if pending and (room is None or room > 0):
            yield (ACT, *("skip",) * ((room or 1) - 1)), size, 6 if room is None else 0
        return
    end = ("flatten",) if enters else ()
    if room is None:
        yield (*act, *end), size, 0
    else:
        spare = room - len(act) - len(end)
        if spare < 0:  # flattened in forward, or linear
            yield ((*act, *end)[: max(room, 0)]) if room else (), size, 0
            if enters and act and room == 1:
                yield end, size, 4
            return
        yield (*act, *("skip",) * spare, *end), size, 2 if spare else 0
        if not spare:
            return
    if layers[at - 1].kind == "block" and not enters:
        return
    idle = ("skip",) * (spare - 1 if room is not None else 0)
    # Residual networks shrink by their strides; at most they average in the end.
    residual = any(layer.kind == "block" for layer in layers)
    for pool, (shrunk, cost) in _POOLS.items():
        if shrunk(size) >= 1:
            rare = 4 * (residual and (pool != "avgpool" or not enters))
            yield (*act, pool, *idle, *end), shrunk(size), cost + rare
    if enters and final == 1 and size > 1:
        yield (*act, "globalpool", *idle, *end), 1, 2
        yield (*act, "globalmax", *idle, *end), 1, 6
    elif enters and size > 2 * final and size % final == 0:
        yield (*act, f"meanto{final}", *idle, *end), final, 6


def _tail(layers: Sequence[ChainLayer], rooms: Sequence[int | None], start: int) -> list[str]:
    """What follows the first linear layer: an activation before each, and idle layers."""
    tokens: list[str] = []
    pending = True
    for layer, room in zip(layers[start:], rooms[start:], strict=True):
        if layer.kind == "norm":
            before = [ACT] if room else []
        else:
            before = [ACT] if pending and room != 0 else []
        tokens += [*before, *("skip",) * ((room or 0) - len(before)), layer.token]
        pending = layer.kind == "linear" or (pending and not before)
    return tokens


def _mixture(tokens: Sequence[str]) -> int:
    """Strides of one kernel, and kinds of pool, are mostly the same throughout."""
    convs = {t.partition("k")[2].partition("p")[0] for t in tokens if t.startswith("conv")}
    kernels = {conv.partition("s")[0] for conv in convs}
    pools = {t for t in tokens if t in _POOLS}
    return 2 * (len(convs) - len(kernels)) + 6 * max(0, len(pools) - 1)
