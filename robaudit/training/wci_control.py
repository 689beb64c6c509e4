"""Control of the learning rate by the Weight-Curvature Index."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from robaudit.attacks import pgd
from robaudit.curvature import wci
from robaudit.curvature.traces import gauss_newton_estimator
from robaudit.engine import device_of, frozen
from robaudit.errors import UsageError

if TYPE_CHECKING:
    from robaudit.types import Images, Labels, ThreatModel


class WCIController:
    """A learning-rate schedule: one fall, then ``lr <- lr / WCI`` whenever WCI is too high.

    Used like torch's schedulers: call :meth:`step` after every epoch. The rates stay as they are
    for ``after`` epochs and are then multiplied by ``decay``; from there on the index is measured
    every ``every`` epochs and, where it exceeds ``threshold``, every rate is divided by it.

    Args:
        optimizer: whose parameter groups' rates are controlled.
        measure: gives the index of the network as it stands, as :func:`fixed_batch_wci` does.
        threshold: the paper has 10 to 100.
        after: epochs before the fall.
        every: epochs from one measurement to the next.
        decay: the fall's factor.

    Attributes:
        last_epoch: how often :meth:`step` was called.
        last_wci: the index at the last epoch, or ``None`` where it was not measured there.

    Raises:
        UsageError: a setting that cannot be meant.

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
        """Say that an epoch is over; sets the rates of the next one."""
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
        """The rates as they stand, a parameter group each."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs; the rates themselves are the optimizer's."""
        return {"last_epoch": self.last_epoch, "last_wci": self.last_wci}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where another controller stopped; load the optimizer's state as well."""
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
    """A function that gives the model's WCI on these images, attacked anew each time by PGD.

    Traces are the Gauss-Newton matrix's (:func:`robaudit.curvature.wci`), the Hessian's in ReLU
    networks: of a smooth network's Hessian they may be negative in some epochs; images and random
    starts are always the same, so that what changes is the network. The mode and the parameters of
    the model are as before afterwards.
    """

    def measure() -> float:
        attacked = pgd(model, x, y, threat, steps=steps, step_size=step_size, seed=seed)
        with frozen(model), torch.no_grad():
            classes = model(x[:1].to(device_of(model))).shape[1]
        return wci(model, attacked.x, y, estimator=gauss_newton_estimator(classes)).value

    return measure
