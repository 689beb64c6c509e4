"""Training objectives of the papers: how adversarial images are computed, and the loss on them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.curvature.top_layer import PENALTIES
from robaudit.engine.logits import Forward
from robaudit.errors import UsageError
from robaudit.training.early_stop import EarlyStop
from robaudit.training.inner import attacked, maximise

if TYPE_CHECKING:
    from robaudit.types import Images, Labels, Logits, ThreatModel, TrainingLoss


class Objective(ABC):
    """A training loss in two steps, between which regularisers can be computed.

    Called with a model and a batch, it computes the examples and returns the loss on them.

    Attributes:
        trace: the loss whose top-layer trace belongs to this objective.
        penalty: weight of the loss's second term; 0 where there is none.
        label_smoothing: ``s`` of the cross-entropy with ``(1 - s) e_y + s / k`` in place of the
            label. The adversarial examples ascend the loss without it.

    Labels ``(n,)`` may be targets ``(n, k)``, such as those of mixup.
    """

    trace: ClassVar[TrainingLoss]
    penalty: float
    label_smoothing: float = 0.0

    @abstractmethod
    def examples(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        generator: torch.Generator | None = None,
        search: Forward | None = None,
    ) -> Images:
        """The images to train on, of the shape of ``x``, without gradient.

        Args:
            search: computes what the model does, and is attacked in its place.
        """

    def loss(self, forward: Forward, x: Images, moved: Images, y: Labels) -> Tensor:
        """The loss, a scalar; here the mean cross-entropy at ``moved``.

        An objective that needs clean logits calls ``forward(x)`` first. The last call is
        ``forward(moved)``.
        """
        return self.cross_entropy(forward(moved), y)

    def cross_entropy(self, logits: Logits, y: Labels) -> Tensor:
        """The mean cross-entropy with the smoothed labels."""
        return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)

    def __call__(
        self, model: nn.Module, x: Images, y: Labels, generator: torch.Generator | None = None
    ) -> Tensor:
        return self.loss(model, x, self.examples(model, x, y, generator), y)


@dataclass(frozen=True)
class AdversarialObjective(Objective):
    """An objective whose examples come from PGD, by default on the cross-entropy.

    They are computed with the model in eval mode: they attack the network that will be evaluated,
    an example's perturbation does not depend on the others in the batch, and the running statistics
    of batch norm are updated once per batch and not ``steps + 1`` times. The loss is computed in
    the model's current mode.

    Attributes:
        threat: norm and radius of the perturbations.
        steps: number of PGD steps.
        step_size: length of a step; a quarter of the radius if not given.
        early_stop: how many steps an example takes once it is misclassified
            (:class:`~robaudit.training.early_stop.EarlyStop`); all of them if not given.
    """

    threat: ThreatModel
    steps: int = 10
    step_size: float | None = None
    early_stop: int | None = field(default=None, kw_only=True)
    label_smoothing: float = field(default=0.0, kw_only=True)

    def ascended(self, model: Forward, x: Images, y: Labels) -> Forward:
        """The function to maximise: perturbed images to a sum over examples."""
        return lambda z: F.cross_entropy(model(z), y, reduction="sum")

    def examples(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        generator: torch.Generator | None = None,
        search: Forward | None = None,
    ) -> Images:
        forward: Forward = search or model
        stop = None if self.early_stop is None else EarlyStop(forward, y, self.early_stop)
        with attacked(model):
            return maximise(
                self.ascended(stop or forward, x, y),
                x,
                self.threat,
                steps=self.steps,
                step_size=self.step_size,
                generator=generator,
                going=None if stop is None else stop.going,
            )


@dataclass(frozen=True)
class Standard(Objective):
    """``E[CE(f(x), y)]``."""

    trace: ClassVar[TrainingLoss] = "at"
    penalty: float = PENALTIES["at"]
    label_smoothing: float = field(default=0.0, kw_only=True)

    def examples(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        generator: torch.Generator | None = None,
        search: Forward | None = None,
    ) -> Images:
        """The clean images themselves."""
        return x


@dataclass(frozen=True)
class At(AdversarialObjective):
    """``E[CE(f(x'), y)]`` with ``x'`` from PGD on the cross-entropy.

    Source: A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
    ICLR 2018, Eq. 2.1.
    """

    trace: ClassVar[TrainingLoss] = "at"
    penalty: float = PENALTIES["at"]


@dataclass(frozen=True)
class Trades(AdversarialObjective):
    """``E[CE(f(x), y) + penalty KL(f(x) || f(x'))]`` with ``x'`` from PGD on the divergence.

    The ascent starts uniformly in the ball, since the divergence has no gradient at ``x' = x``.
    Gradients of the loss flow through both forward passes.

    Attributes:
        penalty: ``1 / lambda`` of the paper.

    Source: H. Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy",
    ICML 2019, Eq. 5 and Algorithm 1.
    """

    trace: ClassVar[TrainingLoss] = "trades"
    penalty: float = PENALTIES["trades"]

    def ascended(self, model: Forward, x: Images, y: Labels) -> Forward:
        """The divergence from the predictions at ``x``, which are constant."""
        with torch.no_grad():
            target = model(x)
        return lambda z: kl_divergence(target, model(z))

    def loss(self, forward: Forward, x: Images, moved: Images, y: Labels) -> Tensor:
        """Clean cross-entropy and the weighted divergence."""
        clean = forward(x)
        return self.cross_entropy(clean, y) + self.penalty * kl_divergence(
            clean, forward(moved)
        ) / len(x)


@dataclass(frozen=True)
class Mart(AdversarialObjective):
    """``E[BCE(p', y) + penalty KL(p || p') (1 - p_y)]`` with ``x'`` from PGD on the cross-entropy.

    ``BCE(p', y) = -log p'_y - log(1 - max_{c != y} p'_c)``; ``p``, ``p'`` are the softmax at ``x``
    and ``x'``. Gradients flow through both, the factor ``1 - p_y`` included. Takes labels, neither
    targets nor smoothing.

    Raises:
        UsageError: with label smoothing.

    Source: Y. Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified
    Examples", ICLR 2020, Eq. 11.
    """

    trace: ClassVar[TrainingLoss] = "mart"
    penalty: float = PENALTIES["mart"]

    def __post_init__(self) -> None:
        if self.label_smoothing:
            raise UsageError("MART's loss has no smoothed labels", "Take at, trades or alp.")

    def loss(self, forward: Forward, x: Images, moved: Images, y: Labels) -> Tensor:
        """Boosted cross-entropy and the weighted divergence."""
        clean, bent = forward(x), forward(moved)
        doubt = 1 - clean.softmax(1).gather(1, y[:, None])[:, 0]
        weighted = divergence_terms(clean, bent).sum(1) * doubt
        return (boosted_cross_entropy(bent, y) + self.penalty * weighted).mean()


@dataclass(frozen=True)
class Alp(AdversarialObjective):
    """``E[CE(f(x'), y) + penalty |p - p'|^2]`` with ``x'`` from PGD on the cross-entropy.

    ``p``, ``p'`` are the softmax at ``x`` and ``x'``; the original paper pairs the logits.

    Source: Z. Wang et al., "Improving robust generalization by direct PAC-Bayesian bound
    minimization", CVPR 2023, appendix G.1; H. Kannan et al., "Adversarial Logit Pairing", 2018.
    """

    trace: ClassVar[TrainingLoss] = "alp"
    penalty: float = PENALTIES["alp"]

    def loss(self, forward: Forward, x: Images, moved: Images, y: Labels) -> Tensor:
        """Cross-entropy at ``moved`` and the weighted squared distance of the softmaxes."""
        clean, bent = forward(x), forward(moved)
        distance = (clean.softmax(1) - bent.softmax(1)).square().sum(1)
        return self.cross_entropy(bent, y) + self.penalty * distance.mean()


def divergence_terms(clean: Logits, moved: Logits) -> Tensor:
    """``p_c (log p_c - log q_c)``, ``(n, k)``; their sums over classes are ``KL(p || q)``, in nats.

    ``p = softmax(clean)``, ``q = softmax(moved)``; logits are ``(n, k)``.
    """
    log_p, log_q = clean.log_softmax(dim=1), moved.log_softmax(dim=1)
    return log_p.exp() * (log_p - log_q)


def kl_divergence(clean: Logits, moved: Logits) -> Tensor:
    """``KL(p || q) = sum_c p_c (log p_c - log q_c)`` summed over examples, a scalar."""
    return divergence_terms(clean, moved).sum()


def boosted_cross_entropy(logits: Logits, y: Labels) -> Tensor:
    """``-log p_y - log(1 - max_{c != y} p_c)`` per example, ``(n,)``.

    ``1 - max p_c`` is computed as the sum of the other probabilities, so that it does not round to
    zero.
    """
    own = y[:, None]
    rival = logits.detach().scatter(1, own, -torch.inf).argmax(1, keepdim=True)
    log_all = logits.logsumexp(1)
    log_others = logits.scatter(1, rival, -torch.inf).logsumexp(1)
    return (log_all - logits.gather(1, own)[:, 0]) + (log_all - log_others)
