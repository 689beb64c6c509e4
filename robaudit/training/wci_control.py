"""Learning-rate control by the Weight-Curvature Index."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from robaudit.attacks import pgd
from robaudit.curvature import wci
from robaudit.curvature.traces import classes_of, gauss_newton_estimator
from robaudit.errors import UsageError

if TYPE_CHECKING:
    from robaudit.types import Images, Labels, ThreatModel


class WCIController:
    """A learning-rate schedule: one decay, then ``lr <- lr / WCI`` whenever WCI is too high.

    Used like torch's schedulers: call :meth:`step` after every epoch. The rates are constant for
    ``after`` epochs and are then multiplied by ``decay``; from then on the index is measured every
    ``every`` epochs and, where it exceeds ``threshold``, every rate is divided by it.

    Args:
        optimizer: the optimizer whose learning rates are controlled.
        measure: returns the index of the current network, such as :func:`fixed_batch_wci`.
        threshold: 10 to 100 in the paper.
        after: number of epochs before the decay.
        every: number of epochs between measurements.
        decay: factor of the decay.

    Attributes:
        last_epoch: number of calls of :meth:`step`.
        last_wci: the index at the last epoch, or ``None`` if it was not measured.

    Raises:
        UsageError: a setting out of range.

    Source: Xu & Zhang, "Understanding adversarially robust generalization via Weight-Curvature
    Index", arXiv 2410.07719v1, Algorithm 1.

    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    >>> control = WCIController(optimizer, lambda: 200.0, after=1)
    >>> for _ in range(2):
    ...     optimizer.step()
    ...     control.step()
    ...     print(round(control.get_last_lr()[0], 6))
    0.01
    5e-05
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        measure: Callable[[], float],
        *,
        threshold: float = 100.0,
        after: int = 100,
        every: int = 1,
        decay: float = 0.1,
    ) -> None:
        if not (threshold >= 1 and every >= 1 and after >= 0 and 0 < decay <= 1):
            raise UsageError(
                f"no WCI control with threshold {threshold:g}, after {after}, every {every} and "
                f"decay {decay:g}",
                "The threshold and every are at least 1, the decay lies in (0, 1].",
            )
        self.optimizer, self.measure = optimizer, measure
        self.threshold, self.after, self.every, self.decay = threshold, after, every, decay
        self.last_epoch = 0
        self.last_wci: float | None = None

    def step(self) -> None:
        """Called after each epoch; sets the rates of the next one."""
        self.last_epoch += 1
        self.last_wci = None
        past = self.last_epoch - self.after
        if past == 0:
            self._scale(self.decay)
        elif past > 0 and past % self.every == 0:
            self.last_wci = self.measure()
            if self.last_wci > self.threshold:
                self._scale(1 / self.last_wci)

    def get_last_lr(self) -> list[float]:
        """The current rates, one per parameter group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The state for :meth:`load_state_dict`; the rates are in the optimizer's state."""
        return {"last_epoch": self.last_epoch, "last_wci": self.last_wci}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a controller's state; the optimizer's state is loaded separately."""
        self.last_epoch = state_dict["last_epoch"]
        self.last_wci = state_dict["last_wci"]

    def _scale(self, factor: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] *= factor


def fixed_batch_wci(
    model: nn.Module,
    x: Images,
    y: Labels,
    threat: ThreatModel,
    *,
    steps: int = 10,
    step_size: float | None = None,
    seed: int = 0,
) -> Callable[[], float]:
    """A function that returns the model's WCI on these images, attacked by PGD in each call.

    Traces are those of the Gauss-Newton matrix (:func:`robaudit.curvature.wci`), which are the
    Hessian's in ReLU networks; those of a smooth network's Hessian may be negative. Images and
    random starts are the same in every call. The model is left unchanged.

    Args:
        model: images to logits.
        x, y: images ``(n, c, h, w)`` and labels.
        threat: of the attack.
        steps: number of PGD steps.
        step_size: length of a step; a quarter of the radius if not given.
        seed: of the random starts.
    """

    def measure() -> float:
        # In float32: differences from call to call are the training's, not the arithmetic's.
        how: Any = {"steps": steps, "step_size": step_size, "seed": seed, "precision": "fp32"}
        attacked = pgd(model, x, y, threat, **how)
        estimator = gauss_newton_estimator(classes_of(model, x))
        return wci(model, attacked.x, y, estimator=estimator).value

    return measure
