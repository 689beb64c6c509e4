"""An objective with its regularisers: the gradient of one training step."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robaudit.engine.logits import Forward
from robaudit.errors import UsageError
from robaudit.training.awp import Awp
from robaudit.training.last_layer import last_layer_terms
from robaudit.training.moving import moved_weights
from robaudit.training.objectives import Objective
from robaudit.training.rotations import Rotations
from robaudit.training.taylor import Taylor
from robaudit.training.trh import Passes, TrH, full_trace, top_layer, top_trace

if TYPE_CHECKING:
    from robaudit.types import Images, Labels


@dataclass(frozen=True)
class Method:
    """An objective with optional regularisers.

    In each step, the adversarial examples are computed first (with a Taylor term at ``w + u``); AWP
    then perturbs the weights against the objective alone; the gradient of objective and
    regularisers is computed at the perturbed weights.

    Raises:
        UsageError: rotations with an objective other than :class:`~robaudit.training.At` and
            :class:`~robaudit.training.Standard`, or beside TrH or Taylor terms.
    """

    objective: Objective
    trh: TrH | None = None
    taylor: Taylor | None = None
    awp: Awp | None = None
    rotations: Rotations | None = None

    def __post_init__(self) -> None:
        others = self.trh is not None or self.taylor is not None
        if self.rotations is not None and (others or self.objective.trace != "at"):
            raise UsageError(
                "rotations go with standard training and AT, without TrH and Taylor terms",
                "Leave one of them out.",
            )

    @property
    def _of_top_layer(self) -> bool:
        """Whether a regulariser needs the inputs and outputs of the top layer."""
        trh, taylor = self.trh, self.taylor
        return (trh is not None and trh.where == "top") or (
            taylor is not None and taylor.kind == "last-layer"
        )

    def descend(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        generator: torch.Generator | None = None,
        *,
        done: float = 0.0,
        epoch: int = 1,
        search: Forward | None = None,
    ) -> Tensor:
        """Add the gradient of one batch to the parameters'; returns the loss with regularisers.

        Args:
            model: in train mode.
            x, y: images and labels of the batch.
            generator: of the random draws.
            done: fraction of all steps that is done.
            epoch: from 1.
            search: attacked in place of the model, as in :meth:`Objective.examples`.

        Raises:
            UsageError: a regulariser does not support the network.
        """
        passes = Passes(model, top_layer(model, x[:1])) if self._of_top_layer else None
        randomised = (
            []
            if self.taylor is None
            else [self.taylor.draw(model, generator) for _ in range(self.taylor.draws)]
        )
        with moved_weights(model, randomised[0]) if randomised else nullcontext():
            moved = self.objective.examples(model, x, y, generator, search)
        beside = None
        if self.rotations is not None:
            others = self.rotations.examples(self.objective, model, x, generator)
            beside = self.rotations.beside(model, others)
        against: dict[str, Tensor] = {}
        if self.awp is not None and epoch > self.awp.after:
            against = self.awp.adversary(model, lambda: self.objective.loss(model, x, moved, y))
        with moved_weights(model, against):
            loss = self.objective.loss(passes or beside or model, x, moved, y)
            if beside is not None:
                loss = loss + beside.loss
            if self.trh is not None:
                trace = (
                    full_trace(self.objective, model, x, moved)
                    if passes is None or self.trh.where == "full"
                    else top_trace(self.objective, passes, y)
                )
                loss = loss + self.trh.weight_at(done) * trace
            if self.taylor is not None:
                if passes is None or self.taylor.kind == "exact":
                    terms = [self.taylor.terms(model, x, moved, u) for u in randomised]
                    loss = loss + torch.stack(terms).mean()
                else:
                    loss = loss + last_layer_terms(
                        self.objective, passes, y, self.taylor.eta, self.taylor.order
                    )
            loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
