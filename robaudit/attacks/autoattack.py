"""AutoAttack by its reference library: the field's verdict on robust accuracy."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robaudit.attacks.result import Attacked
from robaudit.engine import device_of, frozen
from robaudit.errors import NotMeasuredError
from robaudit.types import Progress, ThreatModel

Version = Literal["standard", "plus", "rand"]

_NORMS = {"linf": "Linf", "l2": "L2"}


@dataclass(frozen=True)
class AutoAttacked(Attacked):
    """An :class:`Attacked` with the library's own account.

    Attributes:
        accuracies: robust accuracy after each attack, in the order they ran.
        notes: the library's warnings, and what was left out for want of classes.
    """

    accuracies: dict[str, float]
    notes: tuple[str, ...]


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    version: Version = "standard",
    seed: int = 0,
    batch_size: int = 250,
    progress: Progress | None = None,
) -> AutoAttacked:
    """Run ``pyautoattack`` as it stands, with frozen parameters and the caller's random state kept.

    The library seeds every batch alike, so its verdicts depend on ``batch_size``; 250 is its own
    default and ours. With fewer than ten classes the targeted attacks are capped at ``k - 1``
    targets; with fewer than four the targeted DLR loss does not exist and APGD-T is left out, said
    in ``notes``.

    Raises:
        NotMeasuredError: the library broke on this model.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020.
    """
    counted = _Counted(model)
    device = device_of(model)
    with frozen(model), torch.random.fork_rng(), _listening() as heard:
        with torch.no_grad():
            logits = torch.cat([model(part.to(device)) for part in torch.split(x, batch_size)])
        correct = (logits.argmax(1) == y.to(device)).cpu()
        attack, notes = _prepared(counted, threat, version, seed, logits.shape[1], device)
        heard.follow(attack.attacks_to_run, progress)
        try:
            adv, predicted = attack.run_standard_evaluation(x, y, batch_size=batch_size)
        except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
            raise NotMeasuredError(f"AutoAttack failed on this model: {error}") from error
    return AutoAttacked(
        x=adv.cpu(),
        loss=torch.full((len(x),), torch.nan),
        robust=predicted.cpu() == y.cpu(),
        correct=correct,
        forwards=counted.forwards,
        backwards=counted.backwards,
        accuracies=heard.accuracies,
        notes=(*notes, *heard.warnings),
    )


def _prepared(
    model: nn.Module,
    threat: ThreatModel,
    version: Version,
    seed: int,
    classes: int,
    device: torch.device,
) -> tuple[Any, list[str]]:
    try:
        from pyautoattack import AutoAttack
    except ImportError:  # the name of older packagings
        from autoattack import AutoAttack

    attack = AutoAttack(
        model, norm=_NORMS[threat.norm], eps=threat.eps, version=version, seed=seed, device=device
    )
    notes = []
    targets = classes - 1
    if targets < attack.apgd_targeted.n_target_classes:
        attack.apgd_targeted.n_target_classes = targets
        attack.fab.n_target_classes = targets
        notes.append(f"targeted attacks ran with {targets} targets: there are {classes} classes")
    if classes < 4:
        needs_four = {"apgd-t", "apgd-dlr"}
        left_out = [name for name in attack.attacks_to_run if name in needs_four]
        attack.attacks_to_run = [name for name in attack.attacks_to_run if name not in needs_four]
        notes.append(f"left out: {', '.join(left_out)} (the DLR loss needs four classes)")
    return attack, notes


class _Counted(nn.Module):
    """Counts the images that pass, forwards and backwards."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = 0
        self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        logits: Tensor = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._passed)  # type: ignore[no-untyped-call]
        return logits

    def _passed(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


class _Listener(logging.Handler):
    """Reads progress, per-attack accuracies and warnings off the library's logger."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.accuracies: dict[str, float] = {}
        self.warnings: list[str] = []
        self._attacks: list[str] = []
        self._progress: Progress | None = None

    def follow(self, attacks: list[str], progress: Progress | None) -> None:
        self._attacks = list(attacks)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.levelno >= logging.WARNING:
            # The library names a page of its own repository; ours stand on their own.
            self.warnings.append("AutoAttack: " + message.split(" See ")[0])
        elif message.startswith("robust accuracy after "):
            name, rest = message.removeprefix("robust accuracy after ").split(":", 1)
            self.accuracies[name.lower()] = float(rest.split("%")[0]) / 100
        elif " - " in message and "successfully perturbed" in message:
            name, batch, _ = message.split(" - ", 2)
            done, of = (int(part) for part in batch.split("/"))
            if self._progress is not None and name in self._attacks:
                at = self._attacks.index(name) + done / of
                self._progress(round(1000 * at), 1000 * len(self._attacks))


@contextmanager
def _listening() -> Iterator[_Listener]:
    logger = logging.getLogger("auto-attack")
    level, propagate = logger.level, logger.propagate
    listener = _Listener()
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield listener
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate
