"""What an adversarial training objective is: examples made by an ascent, and a loss at them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.training.inner import attacked, maximise

if TYPE_CHECKING:
    from robaudit.types import Images, Labels, Logits, ThreatModel

Trace = Literal["at", "trades", "alp", "mart"]
"""The losses whose top-layer trace has a closed form."""

Forward = Callable[[Tensor], Tensor]
"""Images ``(n, c, h, w)`` in ``[0, 1]`` to logits ``(n, k)``, such as a model."""


class Objective(ABC):
    """A training loss in two parts, so that regularisers can come between them.

    Called with a model and a batch, it makes the examples and gives the loss at them.

    Attributes:
        trace: which trace of the top layer's Hessian is this loss's.
        penalty: the weight of the loss's second part; 0 where there is none.
    """

    trace: ClassVar[Trace]
    penalty: float

    @abstractmethod
    def examples(
        self, model: nn.Module, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> Images:
        """The images to train on, in place of ``x`` or beside it; constants, of its shape."""

    @abstractmethod
    def loss(self, forward: Forward, x: Images, moved: Images, y: Labels) -> Tensor:
        """The loss, a scalar; where it needs clean logits, ``forward(x)`` is its first call.

        Its last call is ``forward(moved)``.
        """

    def __call__(
        self, model: nn.Module, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.loss(model, x, self.examples(model, x, y, generator), y)


@dataclass(frozen=True)
class Adversarial(Objective):
    """An objective whose examples come from PGD, by default on the cross-entropy.

    They are made with the model in eval mode: so they attack the network that will be evaluated, an
    example's perturbation does not depend on its neighbours in the batch, and the running
    statistics of batch norm see each batch once and not ``steps + 1`` times. The loss itself is
    computed in the mode the model is in.

    Attributes:
        threat: norm and radius of the perturbations.
        steps: PGD steps.
        step_size: of one step; a quarter of the radius if not given.
    """

    threat: ThreatModel
    steps: int = 10
    step_size: float | None = None

    def climbed(self, model: nn.Module, x: Images, y: Labels) -> Forward:
        """What the ascent maximises: perturbed images to a sum over examples."""
        return lambda z: F.cross_entropy(model(z), y, reduction="sum")

    def examples(
        self, model: nn.Module, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> Images:
        with attacked(model):
            return maximise(
                self.climbed(model, x, y), x, self.threat, steps=self.steps,
                step_size=self.step_size, generator=generator,
            )  # fmt: skip


def divergence_terms(clean: Logits, moved: Logits) -> Tensor:
    """``p_c (log p_c - log q_c)``, ``(n, k)``; their sums over classes are ``KL(p || q)``, in nats.

    ``p = softmax(clean)``, ``q = softmax(moved)``; logits are ``(n, k)``.
    """
    log_p, log_q = clean.log_softmax(dim=1), moved.log_softmax(dim=1)
    return log_p.exp() * (log_p - log_q)


def kl_divergence(clean: Logits, moved: Logits) -> Tensor:
    """``KL(p || q) = sum_c p_c (log p_c - log q_c)`` summed over examples, a scalar."""
    return divergence_terms(clean, moved).sum()
