"""Traces in any parameter, one example at a time by plain automatic differentiation.

It makes no assumption on how the network uses a parameter, and so covers fused attention,
sequence-first layers, embeddings and weights that are used as tensors.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.exact import Factor
from robaudit.curvature.products import along
from robaudit.engine import generator

# Numbers in the gradients of one backward pass for several columns, at most.
_TOGETHER = 1 << 22


def squared_gradients(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    image: Tensor,
    factor: Factor,
    kept: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """``sum_c ||J_k^T s_c||^2`` of one example for every parameter, ``(parameters,)`` float64.

    As in :func:`robaudit.curvature.exact.gauss_newton_traces`, with explicit gradients.

    Args:
        image: ``(1, c, h, w)``.
        factor: ``logits (1, k) -> columns (c, 1, k)``.
        kept: masks of the entries that are not pruned, by name.
    """
    masks = [(kept or {}).get(name) for name in parameters]
    with wanting_gradients(parameters):
        logits = model(image)
        tensors = list(parameters.values())
        totals = torch.zeros(len(tensors), dtype=torch.float64, device=image.device)
        if logits.requires_grad:
            columns = factor(logits.detach())
            size = sum(tensor.numel() for tensor in tensors)
            for part in torch.split(columns, max(1, _TOGETHER // max(size, 1))):
                for k, gradient in enumerate(column_gradients(logits, tensors, part)):
                    if gradient is not None:
                        mask = masks[k]
                        gradient = gradient if mask is None else gradient * mask
                        totals[k] += torch.linalg.vector_norm(gradient, dtype=torch.float64) ** 2
    return totals


def hessian_samples(
    model: nn.Module,
    parameters: Mapping[str, Tensor],
    image: Tensor,
    label: Tensor,
    example: int,
    probe: int,
    seed: int,
    kept: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """One draw of ``t_k`` with ``E t_k = Tr(H_k)`` of one example, ``(parameters,)`` float64.

    ``v_k`` is Rademacher over parameter k, ``t_k = <v_k, (H v)_k>`` with one Hessian-vector product
    in all of them; terms between parameters have mean zero, since their draws are independent.
    ``kept`` as in :func:`squared_gradients`.
    """
    tensors = list(parameters.values())
    signs = [_signs(tensor, seed, example, probe, name) for name, tensor in parameters.items()]
    for k, name in enumerate(parameters):
        if kept and name in kept:
            signs[k] = signs[k] * kept[name]
    samples = torch.zeros(len(tensors), dtype=torch.float64, device=image.device)
    with wanting_gradients(parameters):
        loss = F.cross_entropy(model(image), label, reduction="sum")
        if not loss.requires_grad:
            return samples
        gradients = torch.autograd.grad(loss, tensors, create_graph=True, materialize_grads=True)
        for k, product in enumerate(along(gradients, signs, tensors)):
            samples[k] = (product * signs[k]).double().sum()
    return samples


def kept_numbers(model: nn.Module, parameters: Mapping[str, Tensor], image: Tensor) -> int:
    """Estimated numbers in memory: tensors saved by the graph, and three times the gradients."""
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor.numel()
        return tensor

    with (
        wanting_gradients(parameters),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        model(image)
    own = {tensor.data_ptr() for tensor in model.parameters()}
    activations = sum(size for place, size in saved.items() if place not in own)
    return activations + 3 * sum(tensor.numel() for tensor in parameters.values())


@contextmanager
def wanting_gradients(parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Enable gradients, of any order, in these parameters of a frozen network inside the block."""
    before = [(tensor, tensor.requires_grad) for tensor in parameters.values()]
    try:
        for tensor, _ in before:
            tensor.requires_grad_(True)
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for tensor, want in before:
            tensor.requires_grad_(want)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Disable torch's fused inference path, which has no gradients and calls no inner modules."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def column_gradients(
    logits: Tensor, tensors: list[Tensor], columns: Tensor
) -> Sequence[Tensor | None]:
    """Gradients of every tensor for several columns, ``(columns, *tensor.shape)`` each."""
    if len(columns) > 1:
        try:
            with warnings.catch_warnings():  # operators without a batched form are only slower
                warnings.simplefilter("ignore")
                return torch.autograd.grad(
                    logits,
                    tensors,
                    columns,
                    retain_graph=True,
                    allow_unused=True,
                    is_grads_batched=True,
                )
        except RuntimeError:  # some functions cannot take several columns at once
            pass
    rows = [
        # Of a sum, since torch imports its symbolic mathematics for gradients of several outputs.
        torch.autograd.grad((logits * column).sum(), tensors, retain_graph=True, allow_unused=True)
        for column in columns
    ]
    return [
        None if any(g is None for g in parts) else torch.stack(parts)
        for parts in zip(*rows, strict=True)
    ]


def _signs(tensor: Tensor, seed: int, example: int, probe: int, name: str) -> Tensor:
    draw = generator(seed, "parameter-probe", example, probe, name)
    return (torch.randint(2, tensor.shape, generator=draw) * 2 - 1).to(tensor)
