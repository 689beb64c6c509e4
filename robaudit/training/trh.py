"""The trace of the loss's Hessian as a regulariser, in the top layer's weight or in all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from robaudit.curvature.top_layer import top_layer_pass, trace_terms
from robaudit.engine import evaluating, frozen
from robaudit.engine.calls import observed
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.training.objectives import Objective

if TYPE_CHECKING:
    from robaudit.types import Images, Labels

# Largest number of entries in the Jacobians of a batch: at most 2 GiB.
_MOST = 2**28


@dataclass(frozen=True)
class TrH:
    """``weight(t) Tr(H)`` added to the loss, ``H`` the Hessian of the loss in the weights.

    Attributes:
        weight: ``lambda`` at the end of training.
        where: ``top`` for the last linear layer's weight, in closed form; ``full`` for every
            parameter, for small networks.
        schedule: ``constant``; ``linear`` from 0 to the weight; ``multistep``: a hundredth of the
            weight until 10 % of all steps are done, a tenth until 50 %, then the weight.

    Source: Z. Wang et al., "Improving robust generalization by direct PAC-Bayesian bound
    minimization", CVPR 2023, Algorithm 1 and appendices D and G.
    """

    weight: float = 5e-4
    where: Literal["top", "full"] = "top"
    schedule: Literal["constant", "linear", "multistep"] = "multistep"

    def weight_at(self, done: float) -> float:
        """``lambda`` when the fraction ``done`` of all steps is done.

        >>> [round(TrH(0.5).weight_at(done), 3) for done in (0.0, 0.1, 0.5)]
        [0.005, 0.05, 0.5]
        """
        if self.schedule == "linear":
            return self.weight * done
        if self.schedule == "multistep":
            return self.weight * (0.01 if done < 0.1 else 0.1 if done < 0.5 else 1.0)
        return self.weight


def top_layer(model: nn.Module, x: Images) -> nn.Linear:
    """The linear layer whose output is the logits.

    Raises:
        UsageError: there is none.
    """
    try:
        with frozen(model), torch.no_grad():
            name, _, _ = top_layer_pass(model, x)
    except NotMeasuredError as error:
        raise UsageError(
            f"a regulariser of the top layer: {error.message}",
            "Take a network that ends in a linear layer, or leave [trh], [rotations] and "
            "last-layer Taylor terms out.",
        ) from None
    return cast("nn.Linear", model.get_submodule(name))


class Passes:
    """A model that records the input and output of its top layer in every call.

    Attributes:
        seen: features ``(n, d)`` and logits ``(n, k)`` of each call, with gradients.
    """

    def __init__(self, model: nn.Module, layer: nn.Module) -> None:
        self._model, self._layer = model, layer
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor) -> Tensor:
        with observed({"": self._layer}) as calls:
            logits: Tensor = self._model(x)
        self.seen.append((_wide(calls[-1].inputs[0]), _wide(logits)))
        return logits


def top_trace(objective: Objective, passes: Passes, y: Labels) -> Tensor:
    """The mean trace of the objective's Hessian in the top layer's weight, differentiable.

    ``passes`` are those of the objective's loss. The formulas are those of
    :func:`robaudit.curvature.top_layer_trh`: the losses' true Hessians, with the clean logits of a
    penalty held fixed. The gradient of the regulariser flows through all terms.
    """
    (z, logits), (z_moved, moved) = passes.seen[0], passes.seen[-1]
    terms = trace_terms(objective.trace, objective.penalty, z, z_moved, logits, moved, y)
    return torch.stack([values.mean() for values in terms.values()]).sum()


def full_trace(objective: Objective, model: nn.Module, x: Images, moved: Images) -> Tensor:
    """The mean Gauss-Newton trace of the objective in all parameters, differentiable.

    ``Tr(J^T Lambda J)`` with ``J`` the Jacobian of an example's logits and ``Lambda = diag(p) -
    p p^T``: at ``x'`` for AT; for TRADES at ``x`` and, times the penalty, at ``x'``, the clean
    logits of the divergence held fixed. It is the Hessian's trace where the network is piecewise
    linear in each parameter. Taken in eval mode, which alone has a Hessian per example.

    Raises:
        UsageError: another objective, or the Jacobians do not fit in memory.
    """
    if objective.trace not in ("at", "trades"):
        raise UsageError(
            f"full-network TrH is available for standard, at and trades, not for {objective.trace}",
            'Write where = "top" under [trh].',
        )
    with evaluating(model):
        trace = _gauss_newton_trace(model, moved)
        if objective.trace == "trades":
            return _gauss_newton_trace(model, x) + objective.penalty * trace
        return trace


def _gauss_newton_trace(model: nn.Module, x: Images) -> Tensor:
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}

    def one(moved: dict[str, Tensor], image: Tensor) -> Tensor:
        logits: Tensor = functional_call(model, moved, (image[None],))[0]
        return logits

    logits = model(x)
    count = sum(p.numel() for p in weights.values())
    if logits.numel() * count > _MOST:
        raise UsageError(
            f"full-network TrH would hold {len(x)} Jacobians of {logits.shape[1]} x {count} "
            "numbers",
            'It is for small networks: write where = "top" under [trh], or a smaller batch_size.',
        )
    jacobians = vmap(jacrev(one), in_dims=(None, 0))(weights, x)
    rows = [part.flatten(2) for part in jacobians.values()]
    gram = torch.stack([part @ part.mT for part in rows]).sum(0)
    p = logits.softmax(1)
    bent = torch.einsum("ni,nij,nj->n", p, gram, p)
    trace: Tensor = ((gram.diagonal(dim1=1, dim2=2) * p).sum(1) - bent).mean()
    return trace


def _wide(values: Tensor) -> Tensor:
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
