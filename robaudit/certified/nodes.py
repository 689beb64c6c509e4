"""A network as a graph of affine maps, ReLUs and tanhs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from robaudit.certified.operators import Affine, Shape

Kind = Literal["input", "affine", "relu", "tanh"]


@dataclass(frozen=True, eq=False)
class Node:
    """One step of a network.

    Attributes:
        name: the module that it comes from, or the operation.
        inputs: indices of the nodes that it takes.
        shape: of one example, without the batch dimension.
        operator: of an affine node.
    """

    name: str
    kind: Kind
    inputs: tuple[int, ...]
    shape: Shape
    operator: Affine | None = None

    def __call__(self, *x: Tensor) -> Tensor:
        """The node's value, of the values of its inputs."""
        if self.kind == "relu":
            return x[0].relu()
        if self.kind == "tanh":
            return x[0].tanh()
        assert self.operator is not None
        return self.operator(*x)


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: every node comes after its inputs.

    ``nodes[0]`` is the image in [0, 1] and the last node the logits, of shape ``(k,)``.
    """

    nodes: tuple[Node, ...]

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Graph:
        """The same graph with its parameters in another type, on another device."""
        return Graph(
            tuple(
                node
                if node.operator is None
                else replace(node, operator=node.operator.to(dtype, device))
                for node in self.nodes
            )
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Logits ``(n, k)`` of images ``(n, *shape)``."""
        last = {i: index for index, node in enumerate(self.nodes) for i in node.inputs}
        values = {0: x}
        for index, node in enumerate(self.nodes[1:], 1):
            values[index] = node(*(values[i] for i in node.inputs))
            for i in set(node.inputs):
                if last[i] == index:
                    del values[i]
        return values[len(self.nodes) - 1]


def ancestors(graph: Graph, node: int) -> list[int]:
    """The nodes that a node's value depends on, itself included, in descending order."""
    needed, found = {node}, []
    for k in range(node, -1, -1):
        if k in needed:
            needed.update(graph.nodes[k].inputs)
            found.append(k)
    return found
