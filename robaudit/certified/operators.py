"""Affine maps: their values, their absolute values and their adjoints.

Every map takes and gives tensors with a leading batch dimension of any size and treats the examples
apart. In the formulas, ``W_i`` is the matrix that an input ``x_i`` is multiplied by and ``b`` the
constant: ``y = sum_i W_i x_i + b``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Affine(ABC):
    """An affine map of one or more inputs.

    Attributes:
        inputs: the shapes of one example of each input.
        shape: the shape of one example of the output.
    """

    inputs: tuple[Shape, ...]
    shape: Shape

    @abstractmethod
    def __call__(self, *x: Tensor) -> Tensor:
        """``sum_i W_i x_i + b``: ``(N, *inputs[i])`` to ``(N, *shape)``."""

    @abstractmethod
    def magnitude(self, *x: Tensor) -> Tensor:
        """``sum_i |W_i| x_i + |b|`` for ``x_i >= 0``.

        Where ``b`` is itself a sum, the absolute values of its terms are added.
        """

    @abstractmethod
    def radius(self, *r: Tensor) -> Tensor:
        """``sum_i |W_i| r_i`` for ``r_i >= 0``."""

    @abstractmethod
    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        """``a W_i`` for every input, ``(N, *inputs[i])``, of row vectors ``a`` ``(N, *shape)``."""

    def constant(self) -> Tensor | None:
        """``b`` of the output's shape, without a batch dimension; ``None`` where it is zero."""
        return None

    @property
    @abstractmethod
    def terms(self) -> int:
        """The largest number of products that are added up for one output, ``b`` included."""

    @property
    @abstractmethod
    def adjoint_terms(self) -> int:
        """The largest number of products that are added up for one element of an adjoint."""

    def to(self, dtype: torch.dtype, device: torch.device | str) -> Self:
        """The same map with its parameters in another type, on another device."""

        def moved(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return value.to(device, dtype if value.is_floating_point() else None)

        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: tree_map(moved, value) for name, value in own.items()})


@dataclass(frozen=True, eq=False)
class WeightedSum(Affine):
    """``sum_i w_i x_i + b``, elementwise; all inputs have the output's shape.

    Attributes:
        weights: each broadcasts to the output's shape; ``None`` stands for ones.
        bias: broadcasts to the output's shape.
        size: of the bias, with the absolute values of what cancels inside it: ``|s| |m| + |c|`` for
            ``s (x - m) + c``. ``None`` for the bias's own absolute value.
    """

    weights: tuple[Tensor | None, ...]
    bias: Tensor | None = None
    size: Tensor | None = None

    def __call__(self, *x: Tensor) -> Tensor:
        return self._summed(x, self.weights, self.bias)

    def magnitude(self, *x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.abs()
        return self._summed(x, self._absolute, bias if self.size is None else self.size)

    def radius(self, *r: Tensor) -> Tensor:
        return self._summed(r, self._absolute, None)

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        return tuple(a if w is None else a * w.to(a.dtype) for w in self.weights)

    def constant(self) -> Tensor | None:
        return None if self.bias is None else self.bias.expand(self.shape)

    @property
    def terms(self) -> int:
        # A bias with a size of its own is a product and a sum.
        return len(self.weights) + (self.bias is not None) + (self.size is not None)

    @property
    def adjoint_terms(self) -> int:
        return 1

    @property
    def _absolute(self) -> tuple[Tensor | None, ...]:
        return tuple(None if w is None else w.abs() for w in self.weights)

    @staticmethod
    def _summed(
        x: tuple[Tensor, ...], weights: tuple[Tensor | None, ...], bias: Tensor | None
    ) -> Tensor:
        parts = [v if w is None else v * w.to(v.dtype) for v, w in zip(x, weights, strict=True)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total if bias is None else total + bias.to(total.dtype)


class NotNegative(Affine):
    """A linear map with coefficients that are not negative, and no constant."""

    def magnitude(self, *x: Tensor) -> Tensor:
        return self(*x)

    def radius(self, *r: Tensor) -> Tensor:
        return self(*r)


@dataclass(frozen=True, eq=False)
class Reshape(NotNegative):
    """The elements of an example in the same order, in another shape."""

    def __call__(self, *x: Tensor) -> Tensor:
        return x[0].reshape(len(x[0]), *self.shape)

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a.reshape(len(a), *self.inputs[0]),)

    @property
    def terms(self) -> int:
        return 1

    @property
    def adjoint_terms(self) -> int:
        return 1


@dataclass(frozen=True, eq=False)
class Rearrangement(NotNegative):
    """Selections, paddings, sums and means.

    Attributes:
        function: maps the inputs, then ``constants``, to the output.
        constants: tensors that the function needs, such as indices.
        fan_in: the number of elements that one output is a sum or a mean of.
        smallest: a lower bound of the coefficients that are not zero.
    """

    function: Callable[..., Tensor]
    constants: tuple[Tensor, ...] = ()
    fan_in: int = 1
    smallest: float = 1.0

    def __call__(self, *x: Tensor) -> Tensor:
        return self.function(*x, *self.constants)

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        differentiable = torch.is_grad_enabled() and a.requires_grad
        with torch.enable_grad():
            x = [a.new_zeros(len(a), *shape).requires_grad_() for shape in self.inputs]
            y = self(*x)
            return torch.autograd.grad(y, x, a, create_graph=differentiable, materialize_grads=True)

    @property
    def terms(self) -> int:
        return self.fan_in

    @cached_property
    def adjoint_terms(self) -> int:
        device = self.constants[0].device if self.constants else None
        ones = torch.ones(1, *self.shape, dtype=torch.float64, device=device)
        sums = [float(part.amax()) for part in self.adjoint(ones) if part.numel()]
        return max(1, math.floor(max(sums, default=0.0) / self.smallest + 1e-6))


@dataclass(frozen=True, eq=False)
class CommonTerm(Affine):
    """A log-softmax without the term that all its elements have in common: the identity.

    That term, ``log sum_j exp(x_j)``, is at most ``max_j |x_j| + log k`` in size. Its difference
    from the elements is rounded.
    """

    def __call__(self, *x: Tensor) -> Tensor:
        return x[0]

    def magnitude(self, *x: Tensor) -> Tensor:
        return x[0] + x[0].amax(-1, keepdim=True) + math.log(self.shape[-1])

    def radius(self, *r: Tensor) -> Tensor:
        return r[0]

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a,)

    @property
    def terms(self) -> int:
        return 3

    @property
    def adjoint_terms(self) -> int:
        return 1


@dataclass(frozen=True, eq=False)
class Constant(Affine):
    """A constant, as a map of an input that it does not depend on.

    Attributes:
        value: of the output's shape.
    """

    value: Tensor

    def __call__(self, *x: Tensor) -> Tensor:
        return self.value.to(x[0].dtype).expand(len(x[0]), *self.shape)

    def magnitude(self, *x: Tensor) -> Tensor:
        return self(*x).abs()

    def radius(self, *r: Tensor) -> Tensor:
        return r[0].new_zeros(len(r[0]), *self.shape)

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a.new_zeros(len(a), *self.inputs[0]),)

    def constant(self) -> Tensor | None:
        return self.value

    @property
    def terms(self) -> int:
        return 1

    @property
    def adjoint_terms(self) -> int:
        return 1
