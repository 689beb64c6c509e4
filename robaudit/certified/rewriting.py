"""Build a graph: affine maps, and exact rewrites of piecewise linear functions with ReLUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robaudit.certified.nodes import Graph, Kind, Node, ancestors
from robaudit.certified.operators import Affine, Constant, Rearrangement, Shape, WeightedSum

Weight = Tensor | float | None
"""A factor: broadcasts to the shape of an example; ``None`` stands for one."""


class Builder:
    """The nodes of a graph so far; every method adds nodes and returns the index of the last."""

    def __init__(self, shape: Shape) -> None:
        self.nodes = [Node("image", "input", (), shape)]
        self.name = ""

    def graph(self, last: int) -> Graph:
        """The nodes that ``last`` depends on."""
        order = sorted({0, *ancestors(Graph(tuple(self.nodes)), last)})
        place = {old: new for new, old in enumerate(order)}
        kept = (self.nodes[old] for old in order)
        return Graph(
            tuple(
                Node(n.name, n.kind, tuple(place[i] for i in n.inputs), n.shape, n.operator)
                for n in kept
            )
        )

    def shape(self, x: int) -> Shape:
        return self.nodes[x].shape

    def affine(self, operator: Affine, *x: int) -> int:
        return self._add("affine", x, operator.shape, operator)

    def constant(self, value: Tensor) -> int:
        """A constant of an example's shape."""
        value = value.double().contiguous()
        return self.affine(Constant((self.shape(0),), tuple(value.shape), value), 0)

    def rearranged(
        self,
        function: Callable[..., Tensor],
        *x: int,
        constants: tuple[Tensor, ...] = (),
        fan_in: int = 1,
        smallest: float = 1.0,
    ) -> int:
        """A linear function with coefficients that are not negative.

        See :class:`~robaudit.certified.operators.Rearrangement`.
        """
        shapes = tuple(self.shape(i) for i in x)
        out = function(*(torch.zeros(1, *shape).double() for shape in shapes), *constants)
        made = Rearrangement(shapes, tuple(out.shape[1:]), function, constants, fan_in, smallest)
        return self.affine(made, *x)

    def weighted(
        self,
        x: Sequence[int],
        weights: Sequence[Weight],
        bias: Tensor | float | None = None,
        size: Tensor | float | None = None,
    ) -> int:
        """``sum_i w_i x_i + b``, of inputs of one shape."""
        shape = self.shape(x[0])
        made = WeightedSum(
            (shape,) * len(x), shape, tuple(map(_tensor, weights)), _tensor(bias), _tensor(size)
        )
        return self.affine(made, *x)

    def relu(self, x: int) -> int:
        return self._add("relu", (x,), self.shape(x))

    def tanh(self, x: int) -> int:
        return self._add("tanh", (x,), self.shape(x))

    def sigmoid(self, x: int) -> int:
        """``(1 + tanh(x / 2)) / 2``."""
        return self.weighted([self.tanh(self.weighted([x], [0.5]))], [0.5], 0.5)

    def leaky_relu(self, x: int, slope: Tensor | float) -> int:
        """``slope x + (1 - slope) relu(x)``."""
        return self.weighted([x, self.relu(x)], [slope, 1 - slope])

    def absolute(self, x: int) -> int:
        """``2 relu(x) - x``."""
        return self.weighted([self.relu(x), x], [2.0, -1.0])

    def at_least(self, x: int, low: Tensor | float) -> int:
        """``max(x, low) = low + relu(x - low)``."""
        if not isinstance(low, Tensor) and low == 0:
            return self.relu(x)
        return self.weighted([self.relu(self.weighted([x], [None], -low))], [None], low)

    def at_most(self, x: int, high: Tensor | float) -> int:
        """``min(x, high) = high - relu(high - x)``."""
        return self.weighted([self.relu(self.weighted([x], [-1.0], high))], [-1.0], high)

    def clamped(self, x: int, low: Tensor | float | None, high: Tensor | float | None) -> int:
        """``min(max(x, low), high)``."""
        x = x if low is None else self.at_least(x, low)
        return x if high is None else self.at_most(x, high)

    def maximum(self, x: int, y: int) -> int:
        """``y + relu(x - y)``."""
        return self.weighted([y, self.relu(self.weighted([x, y], [None, -1.0]))], [None, None])

    def minimum(self, x: int, y: int) -> int:
        """``x - relu(x - y)``."""
        return self.weighted([x, self.relu(self.weighted([x, y], [None, -1.0]))], [None, -1.0])

    def largest(self, parts: Sequence[int]) -> int:
        """The elementwise maximum of nodes of one shape, as a balanced tree."""
        parts = list(parts)
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=False)
            left = parts[-1:] if len(parts) % 2 else []
            parts = [self.maximum(a, b) for a, b in pairs] + left
        return parts[0]

    def largest_in_windows(self, x: int, dim: int, windows: Sequence[Sequence[int]]) -> int:
        """The largest of the positions of each window.

        Args:
            dim: of an example.
            windows: for each output, the positions that it is the largest of.
        """
        most = max(map(len, windows))
        # A shorter window repeats its last position.
        padded = [[*window, *[window[-1]] * (most - len(window))] for window in windows]
        return self.largest([self._taken(x, dim, column) for column in zip(*padded, strict=True)])

    def _taken(self, x: int, dim: int, places: Sequence[int]) -> int:
        """The elements at some places of a dimension, a slice where they are evenly spaced."""
        first, step = places[0], places[1] - places[0] if len(places) > 1 else 1
        last = first + step * (len(places) - 1)
        if step > 0 and list(places) == list(range(first, last + 1, step)):
            at = (slice(None),) * (dim + 1) + (slice(first, last + 1, step),)
            return self.rearranged(lambda v: v[at], x)
        index = torch.tensor(places)
        return self.rearranged(lambda v, i: v.index_select(dim + 1, i), x, constants=(index,))

    def _add(
        self, kind: Kind, inputs: tuple[int, ...], shape: Shape, operator: Affine | None = None
    ) -> int:
        self.nodes.append(Node(self.name, kind, inputs, shape, operator))
        return len(self.nodes) - 1


def _tensor(value: Weight) -> Tensor | None:
    if value is None or isinstance(value, Tensor):
        return None if value is None else value.double()
    return torch.tensor(value, dtype=torch.float64)
