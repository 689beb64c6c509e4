"""AutoAttack by its reference library: the field's verdict on robust accuracy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robaudit.attacks.diagnostics import BLACK_BOX, Diagnostics
from robaudit.attacks.few_classes import runnable
from robaudit.attacks.result import STANDS, WRONG, AttackResult
from robaudit.attacks.verification import verify
from robaudit.engine import Accelerated, Runner, accelerate, device_of, frozen, sighted
from robaudit.engine.arguments import checked
from robaudit.engine.logits import logits_of
from robaudit.engine.raised import blame, is_foreign
from robaudit.engine.spilled import copied
from robaudit.errors import NotMeasuredError
from robaudit.types import Cache, Progress, ThreatModel, no_cache

Version = Literal["standard", "plus", "rand"]

_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}

_LOGGER = "auto-attack"
_SAID = "said"


@checked
def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    version: Version = "standard",
    seed: int = 0,
    batch_size: int = 250,
    faster: bool = True,
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """Run ``pyautoattack``, batch by batch, with frozen parameters and the caller's random state.

    Each of its attacks runs on what the ones before left standing, in batches in the examples'
    order, as the library itself does: the verdicts are those that it gives alone. It seeds every
    batch alike, so that they depend on ``batch_size``; 250 is its own default and ours. With fewer
    than ten classes the targeted attacks are capped at ``k - 1`` targets; with fewer than four
    APGD-T and with fewer than three APGD-DLR are left out, since their loss does not exist; both
    are said in ``notes``.

    Args:
        faster: let the library see the network as :func:`robaudit.engine.accelerate` runs it. What
            it breaks counts if the network itself, as it stands, is broken by it.
        cache: keeps each finished batch of each attack.

    Raises:
        NotMeasuredError: the library broke on this model.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020.
    """
    device = device_of(model)
    with frozen(model), torch.random.fork_rng(), _listening() as heard:
        torch.manual_seed(seed)
        logits = Runner(model, device).logits(x).cpu()
        correct = logits.argmax(1) == y
        engine = accelerate(model, x.shape[1:]) if faster else Accelerated(model)
        counted = _Counted(sighted(engine.forward, x[:1].to(device)))
        attack, notes = _prepared(counted, threat, version, seed, logits.shape[1], device)
        stages = list(attack.attacks_to_run)
        found, broken_by = copied(x), torch.where(correct, STANDS, WRONG)
        accuracies: dict[str, float] = {}
        spent = torch.zeros(2, dtype=torch.long)
        said: list[str] = []
        refused = 0
        for at, stage in enumerate(stages):
            left = torch.nonzero(broken_by == STANDS)[:, 0]
            if len(left) == 0:
                break
            for place, rows in enumerate(torch.split(left, batch_size)):

                def run(rows: Tensor = rows, stage: str = stage) -> dict[str, Tensor]:
                    heard.warnings.clear()
                    return {**_run(attack, counted, stage, x[rows], y[rows]), **heard.kept()}

                piece = cache(f"{stage}-{place:05d}", run)
                said += _Listener.told(piece)
                spent += piece["spent"]
                claimed = piece["broken"]
                breaks = verify(model, x[rows], piece["x"], y[rows], threat).breaks & claimed
                refused += int((claimed & ~breaks).sum())
                found[rows[breaks]] = piece["x"][breaks]
                broken_by[rows[breaks]] = at
                if progress is not None:
                    done = at + min(1.0, (place + 1) * batch_size / len(left))
                    progress(round(1000 * done), 1000 * len(stages))
            accuracies[stage] = float((broken_by == STANDS).double().mean())
        heard.warnings.clear()
        _judge_square({"clean": float(correct.double().mean()), **accuracies})
        said += heard.warnings
    if refused:
        notes.append(
            f"{refused} adversarial examples do not count: the network itself is not broken by them"
        )
    return AttackResult(
        x=found,
        loss=torch.full((len(x),), torch.nan),
        robust=broken_by == STANDS,
        correct=correct,
        forwards=int(spent[0]),
        backwards=int(spent[1]),
        accuracies=accuracies,
        broken_by=broken_by,
        diagnostics=_diagnosed(correct, broken_by, list(accuracies)),
        notes=(*notes, *engine.notes, *dict.fromkeys(said)),
    )


def _diagnosed(correct: Tensor, broken_by: Tensor, stages: list[str]) -> Diagnostics:
    """What the library's verdicts say of gradients: what Square alone broke."""
    alone = [stages.index(name) for name in BLACK_BOX if name in stages]
    return Diagnostics(
        attacked=int(correct.sum()),
        zero_gradient=0,
        stuck=0,
        black_box_only=sum(int((broken_by == place).sum()) for place in alone),
        targets_missing=0,
    )


def _run(attack: Any, counted: _Counted, stage: str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """One attack on one batch: points, whether they broke it, passes forward and backward."""
    before = torch.tensor([counted.forwards, counted.backwards])
    attack.attacks_to_run = [stage]
    try:
        adv, predicted = attack.run_standard_evaluation(x, y, batch_size=len(x))
    except BaseException as error:
        if not is_foreign(error):
            raise
        raise NotMeasuredError(f"AutoAttack's {stage} failed: {blame(error)}") from error
    spent = torch.tensor([counted.forwards, counted.backwards]) - before
    return {"x": adv.cpu(), "broken": predicted.cpu() != y, "spent": spent}


def _judge_square(accuracies: dict[str, float]) -> None:
    """The library's own look at what Square added, which it takes of a whole evaluation alone."""
    try:
        from pyautoattack.checks import check_square_sr
    except ImportError:  # the name of older packagings
        from autoattack.checks import check_square_sr
    check_square_sr(accuracies, logger=logging.getLogger(_LOGGER))


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
    asked = {
        "apgd-t": attack.apgd_targeted.n_target_classes,
        "fab-t": attack.fab.n_target_classes,
    }
    attack.attacks_to_run, notes = runnable(attack.attacks_to_run, asked, classes)
    attack.apgd_targeted.n_target_classes = min(asked["apgd-t"], classes - 1)
    attack.fab.n_target_classes = min(asked["fab-t"], classes - 1)
    return attack, notes


class _Counted(nn.Module):
    """Counts the images that pass, forwards and backwards."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = forward
        self.forwards = 0
        self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        logits = logits_of(self.run, x)
        if logits.requires_grad:
            logits.register_hook(self._passed)  # type: ignore[no-untyped-call]
        return logits

    def _passed(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


class _Listener(logging.Handler):
    """Reads warnings off the library's logger."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        # Its words on few classes hold whatever attack runs; `runnable` has seen to those that do.
        if not ("DLR loss" in said or "target classes" in said):
            # The library names a page of its own repository; ours stand on their own.
            self.warnings.append("AutoAttack: " + said.split(" See ")[0])

    def kept(self) -> dict[str, Tensor]:
        """What was heard, as a part of a piece of work: who finds that piece hears it again."""
        said = "\n".join(dict.fromkeys(self.warnings)).encode()
        return {_SAID: torch.tensor(list(said), dtype=torch.uint8)} if said else {}

    @staticmethod
    def told(piece: dict[str, Tensor]) -> list[str]:
        """What was heard while a piece of work was done, whenever and by whomever."""
        return bytes(piece[_SAID].tolist()).decode().split("\n") if _SAID in piece else []


@contextmanager
def _listening() -> Iterator[_Listener]:
    logger = logging.getLogger(_LOGGER)
    level, propagate = logger.level, logger.propagate
    listener = _Listener()
    logger.addHandler(listener)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield listener
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
        logger.propagate = propagate
