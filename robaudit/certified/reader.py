"""What reads one ATen operation after another into a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robaudit.certified.exported import BATCH, refusal
from robaudit.certified.operators import Affine, Shape
from robaudit.certified.rewriting import Builder, Weight

MIXED = "the network mixes the examples of a batch"
PRODUCT = "a product of two activations"


@dataclass(frozen=True)
class Activation:
    """A value that depends on the image: the node of that index."""

    index: int


@dataclass(frozen=True)
class Stack:
    """Activations stacked in front of the batch: the logits of an ensemble's members."""

    parts: tuple[Activation, ...]


Handler = Callable[..., Any]
"""Reads an operation: called with the reader and all arguments of the operation in order."""


class Reader:
    """A program that is being read.

    Attributes:
        build: the graph so far.
        out: the shape of the present operation's first output, without the batch dimension.
        dtype: of the image.
        single: whether an activation so far is in float32.
        rounded: whether a network in float32 has to round a constant that was computed so far.
    """

    def __init__(self, shape: Shape, dtype: torch.dtype) -> None:
        self.build = Builder(shape)
        self.out: Shape = ()
        self.dtype = dtype
        self.single = False
        self.rounded = False

    def shape(self, x: Activation) -> Shape:
        """Of one example."""
        return self.build.shape(x.index)

    def dim(self, x: Activation, dim: int) -> int:
        """A dimension of the batch as one of an example."""
        dim %= len(self.shape(x)) + 1
        if dim == 0:
            raise refusal(MIXED)
        return dim - 1

    def computed(self, value: Any) -> None:
        """Note a constant that the program computes."""
        if isinstance(value, Tensor) and value.dtype == torch.float64:
            self.rounded |= not bool((value == value.float()).logical_or(value.isnan()).all())

    def constant_row(self, value: Any, rank: int) -> Any:
        """A constant as it meets an example of ``rank`` dimensions; numbers as they are."""
        if not isinstance(value, Tensor) or value.ndim <= rank:
            return value
        if value.ndim > rank + 1 or not bool((value == value[:1]).all()):
            raise refusal(MIXED)
        return value[0]

    def activation(self, value: Any) -> Activation:
        """A constant with a batch dimension as an activation; activations as they are."""
        if isinstance(value, Activation):
            return value
        if not isinstance(value, Tensor) or not value.ndim or len(value) not in (1, BATCH):
            raise refusal(MIXED)
        return Activation(self.build.constant(self.constant_row(value, value.ndim - 1)))

    def affine(self, operator: Affine, *x: Activation) -> Activation:
        return Activation(self.build.affine(operator, *(v.index for v in x)))

    def rearranged(
        self,
        function: Callable[..., Tensor],
        *x: Activation,
        constants: tuple[Tensor, ...] = (),
        fan_in: int = 1,
        smallest: float = 1.0,
    ) -> Activation:
        """A linear function whose coefficients are not negative.

        See :class:`~robaudit.certified.operators.Rearrangement`.
        """
        nodes = tuple(v.index for v in x)
        made = self.build.rearranged(
            function, *nodes, constants=constants, fan_in=fan_in, smallest=smallest
        )
        return Activation(made)

    def weighted(
        self, x: Sequence[Activation], weights: Sequence[Weight], bias: Weight = None
    ) -> Activation:
        """``sum_i w_i x_i + b`` with everything expanded to the operation's output."""
        nodes = [self.broadcast(v).index for v in x]
        return Activation(self.build.weighted(nodes, weights, bias))

    def broadcast(self, x: Activation) -> Activation:
        """``x`` with its examples expanded to the operation's output."""
        shape = self.out
        if self.shape(x) == shape:
            return x
        if len(self.shape(x)) != len(shape):
            raise refusal(MIXED)
        return self.rearranged(lambda v: v.expand(len(v), *shape), x)
