"""The autograd graph behind tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor


def nodes_behind(*outputs: Tensor) -> Iterator[Any]:
    """Each backward node that leads to one of the outputs, once."""
    seen: set[Any] = {None}
    waiting: list[Any] = [output.grad_fn for output in outputs]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            yield node
            waiting += [behind for behind, _ in node.next_functions]
