"""Backward passes for many logit gradients together, through the graph that autograd recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Node = Any  # torch.autograd.graph.Node; its saved values have no static types


class Sweep:
    """The part of ``root``'s graph that leads to ``targets``; it can be swept several times.

    Autograd's batched gradients run some operators once per column and hold the gradients of all
    targets until the end. Here convolutions, activations, batch norm and linear maps process all
    columns in one call, in the memory order in which convolutions are fastest; the backward
    functions of other operators are called column by column; and each gradient is delivered as soon
    as it is complete, and then freed.

    Args:
        root: differentiable, any shape.
        targets: tensors that ``root`` was computed from.
    """

    def __init__(self, root: Tensor, targets: Sequence[Tensor]) -> None:
        self._root = (root.grad_fn, root.output_nr)
        leaves = {id(target): at for at, target in enumerate(targets) if target.is_leaf}
        ends: dict[tuple[Node, int], int] = {
            (target.grad_fn, target.output_nr): at
            for at, target in enumerate(targets)
            if not target.is_leaf
        }
        stops = {node for node, _ in ends}
        finished: dict[Node, bool] = {}  # leads to a target; insertion order is a postorder
        stack: list[tuple[Node, bool]] = [(root.grad_fn, False)]
        while stack:
            node, expanded = stack.pop()
            if node is None or node in finished:
                continue
            if not expanded:
                stack.append((node, True))
                stack.extend((child, False) for child, _ in node.next_functions)
                continue
            at = leaves.get(id(getattr(node, "variable", None)))
            if at is not None:
                ends[node, 0] = at
                stops.add(node)
            finished[node] = node in stops or any(
                finished.get(child, False) for child, _ in node.next_functions
            )
        self._leads = finished
        self._order = [node for node in reversed(finished) if finished[node]]
        self._ends: dict[Node, list[tuple[int, int]]] = {}
        for (node, slot), at in ends.items():
            self._ends.setdefault(node, []).append((slot, at))

    def steps(self) -> Iterator[tuple[Node, tuple[int, ...]]]:
        """Each operator between targets and root, with the inputs that depend on a target.

        For an operator whose output is a target, only inputs that lead to other targets.
        """
        for node in self._order:
            places = tuple(
                place
                for place, (child, _) in enumerate(node.next_functions)
                if self._leads.get(child, False)
            )
            if places:
                yield node, places

    def __call__(self, columns: Tensor, deliver: Callable[[int, Tensor], None]) -> None:
        """Call ``deliver(i, gradient)`` for every target that ``root`` depends on.

        Args:
            columns: gradients of ``root``, ``(columns, *root.shape)``. Their precision, which may
                be lower than the network's, is that of the sweep.
            deliver: receives the target's position and its gradient, ``(columns,
                *target.shape)``, with any strides; it must not modify the gradient.
        """
        arrived: dict[Node, dict[int, Tensor]] = {self._root[0]: {self._root[1]: columns}}
        for node in self._order:
            slots = arrived.pop(node, None)
            if slots is None:
                continue
            for slot, at in self._ends.get(node, ()):
                if slot in slots:
                    deliver(at, slots[slot])
            wanted = [
                (place, child, slot)
                for place, (child, slot) in enumerate(node.next_functions)
                if self._leads.get(child, False)
            ]
            if not wanted:
                continue
            gradients = _backward(node, slots, [place for place, _, _ in wanted])
            del slots
            for (_, child, slot), gradient in zip(wanted, gradients, strict=True):
                if gradient is not None:
                    gradient = _summed_to(gradient, child._input_metadata[slot].shape)
                    waiting = arrived.setdefault(child, {})
                    known = waiting.get(slot)
                    waiting[slot] = gradient if known is None else known + gradient


def _backward(node: Node, slots: dict[int, Tensor], places: list[int]) -> list[Tensor | None]:
    """Gradients of the node's inputs at ``places``, from those of its outputs."""
    if list(slots) == [0]:
        known, rule = _RULES.get(node.name(), (-1, _same))
        # Norms with batch statistics also have a gradient through the statistics.
        if places == [known] and not getattr(node, "_saved_training", False):
            return [rule(node, slots[0])]
        if node.name() == "AddBackward0" and node._saved_alpha == 1:
            return [slots[0]] * len(places)
    computed = next(iter(slots.values())).dtype
    # Not callable: the backward of a Python autograd.Function.
    call = node if callable(node) else node.apply
    rows = []
    for column in range(len(next(iter(slots.values())))):
        arguments = [
            slots[slot][column].to(meta.dtype) if slot in slots else _missing(node, meta)
            for slot, meta in enumerate(node._input_metadata)
        ]
        found = call(*arguments)
        found = found if isinstance(found, tuple) else (found,)
        rows.append([found[place] for place in places])
    return [
        None if any(part is None for part in parts) else torch.stack(parts).to(computed)
        for parts in zip(*rows, strict=True)
    ]


def _missing(node: Node, meta: Any) -> Tensor | None:
    if callable(node):
        return None
    return torch.zeros(meta.shape, dtype=meta.dtype, device=meta.device)


def _summed_to(g: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo broadcasting, which autograd's engine does between nodes."""
    if g.shape[1:] == shape:
        return g
    extra = g.dim() - 1 - len(shape)
    if extra:
        g = g.sum(tuple(range(1, 1 + extra)))
    ones = [at + 1 for at, size in enumerate(shape) if size == 1 and g.shape[at + 1] != 1]
    return g.sum(ones, keepdim=True) if ones else g


def _convolution(node: Node, g: Tensor) -> Tensor:
    """The adjoint of a convolution is a transposed one with the same weight, and vice versa."""
    size, weight = node._saved_input.shape[2:], node._saved_weight
    stride, padding, dilation = node._saved_stride, node._saved_padding, node._saved_dilation
    rows = _channels_last(g.flatten(0, 1))
    weight = weight.to(rows.dtype)
    extra = [0] * len(stride)
    if not node._saved_transposed:
        extra = [
            want - ((have - 1) * s - 2 * p + d * (k - 1) + 1)
            for want, have, s, p, d, k in zip(
                size, rows.shape[2:], stride, padding, dilation, weight.shape[2:], strict=True
            )
        ]
    out = torch.ops.aten.convolution(
        rows,
        weight,
        None,
        stride,
        padding,
        dilation,
        not node._saved_transposed,
        extra,
        node._saved_groups,
    )
    return _unflatten(out, len(g))


def _batch_norm(node: Node, g: Tensor) -> Tensor:
    scale: Tensor = (node._saved_running_var + node._saved_eps).rsqrt()
    if node._saved_weight is not None:
        scale = scale * node._saved_weight
    return g * scale.to(g.dtype).reshape(-1, *[1] * (g.dim() - 3))


def _relu(node: Node, g: Tensor) -> Tensor:
    # The product has the memory order of its first factor, which is the network's. Products with
    # numbers are faster than with booleans.
    active: Tensor = (node._saved_result > 0).to(g.dtype)
    return active * g


def _view(node: Node, g: Tensor) -> Tensor:
    return g.reshape(len(g), *node._saved_self_sym_sizes)


def _same(node: Node, g: Tensor) -> Tensor:
    return g


def _linear(node: Node, g: Tensor) -> Tensor:
    transposed: Tensor = node._saved_mat2.t()
    return g @ transposed.to(g.dtype)


def _channels_last(rows: Tensor) -> Tensor:
    return rows.contiguous(memory_format=torch.channels_last) if rows.dim() == 4 else rows


def _unflatten(rows: Tensor, columns: int) -> Tensor:
    return rows.reshape(columns, -1, *rows.shape[1:])


# Name of autograd's node to the input that the rule gives the gradient of, and the rule.
_RULES: dict[str, tuple[int, Callable[[Node, Tensor], Tensor]]] = {
    "ConvolutionBackward0": (0, _convolution),
    "NativeBatchNormBackward0": (0, _batch_norm),
    "ReluBackward0": (0, _relu),
    "ViewBackward0": (0, _view),
    "UnsafeViewBackward0": (0, _view),
    "CloneBackward0": (0, _same),
    "AddmmBackward0": (1, _linear),
    "MmBackward0": (0, _linear),
}
