"""AutoAttack by its reference library."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robaudit.attacks.diagnostics import BLACK_BOX, Diagnostics
from robaudit.attacks.few_classes import runnable
from robaudit.attacks.result import STANDS, WRONG, AttackResult
from robaudit.attacks.verification import verify
from robaudit.engine import Accelerated, Runner, accelerate, device_of, frozen, sighted
from robaudit.engine.arguments import checked
from robaudit.engine.logits import logits_of
from robaudit.engine.precision import default_precision
from robaudit.engine.raised import blame, is_foreign
from robaudit.engine.spilled import copied
from robaudit.errors import NotMeasuredError
from robaudit.types import AutoAttackVersion, Cache, Progress, ThreatModel, no_cache

_LOGGER = "auto-attack"
_SAID = "said"
# By stage: which of the library's attacks it is, and what the library sets of it before it runs.
_ATTACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "apgd-ce": ("apgd", {"loss": "ce"}),
    "apgd-dlr": ("apgd", {"loss": "dlr"}),
    "apgd-t": ("apgd_targeted", {}),
    "fab": ("fab", {"targeted": False}),
    "fab-t": ("fab", {"targeted": True, "n_restarts": 1}),
    "square": ("square", {}),
}


@checked
def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    version: AutoAttackVersion = "standard",
    seed: int = 0,
    batch_size: int = 250,
    faster: bool = True,
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """AutoAttack by its reference library ``pyautoattack``.

    Each of its attacks runs on the examples that are still robust, in batches in their order, as
    the library itself does, in PyTorch's default arithmetic (TF32 in convolutions on recent GPUs),
    so the verdicts are those that it gives alone. It takes the library's passes, and of the network
    itself in float32 one for each image and one for each point that the library counts as a break,
    which counts only if it is one there. The library seeds every batch alike, so verdicts depend on
    ``batch_size``. With fewer than ten classes the targeted attacks have ``k - 1`` targets; with
    fewer than four APGD-T and with fewer than three APGD-DLR are left out, because their loss does
    not exist; ``notes`` say so.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode
            with frozen parameters and is left as it was.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.
        version: ``standard``, ``plus`` or ``rand``, as the library calls them.
        seed: given to the library. The caller's random state is left as it was.
        batch_size: images per batch; 250 is the library's default.
        faster: let the library run the network in its fastest form
            (:func:`robaudit.engine.accelerate`). A break counts only if the original network in
            float32 confirms it.
        cache: keeps each finished batch of each attack, so that an interrupted run can continue.
        progress: called with the work done and the work in all.

    Returns:
        All common fields and those of an ensemble, without ``passes``; ``loss`` is ``nan``.

    Raises:
        NotMeasuredError: the library raised on this model.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 4))
    >>> x, y = torch.rand(2, 1, 2, 2), torch.zeros(2).long()
    >>> found = autoattack(net, x, y, ThreatModel("linf", 0.1), version="rand")
    >>> bool((found.robust <= found.correct).all())
    True
    """
    device = device_of(model)
    drawing = [device] if device.type == "cuda" else []
    with frozen(model), torch.random.fork_rng(drawing), _listening() as heard:
        torch.manual_seed(seed)
        logits = Runner(model, device).logits(x).cpu()
        correct = logits.argmax(1) == y
        engine = accelerate(model, x.shape[1:], "fp32") if faster else Accelerated(model)
        counted = _Counted(sighted(engine.forward, x[:1].to(device)))
        attack, notes = _prepared(counted, threat, version, seed, logits.shape[1], device)
        stages = list(attack.attacks_to_run)
        found, broken_by = copied(x), torch.where(correct, STANDS, WRONG)
        accuracies: dict[str, float] = {}
        if len(x):
            _checked(attack, x[:batch_size], y[:batch_size])
        spent = counted.spent
        said = list(heard.warnings)
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
                own, rows = piece["x"][piece["broken"]], rows[piece["broken"]]
                if len(rows):
                    breaks = verify(model, x[rows], own, y[rows], threat).breaks
                    refused += int((~breaks).sum())
                    found[rows[breaks]] = own[breaks]
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
    """What the verdicts say about gradients: how many examples only Square broke."""
    alone = [stages.index(name) for name in BLACK_BOX if name in stages]
    return Diagnostics(
        attacked=int(correct.sum()),
        zero_gradient=0,
        stuck=0,
        black_box_only=sum(int((broken_by == place).sum()) for place in alone),
        targets_missing=0,
    )


def _checked(attack: Any, x: Tensor, y: Tensor) -> None:
    """Run the library's own checks of a network, on the first batch as it does."""
    stages, attack.attacks_to_run = attack.attacks_to_run, []
    with _blamed("checks"):
        attack.run_standard_evaluation(x, y, batch_size=len(x))
    attack.attacks_to_run = stages


def _run(attack: Any, counted: _Counted, stage: str, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """One attack on one batch, as the library runs it: points, whether they broke it, passes."""
    before = counted.spent
    name, settings = _ATTACKS[stage]
    own = getattr(attack, name)
    for setting, value in {**settings, "seed": attack.get_seed()}.items():
        setattr(own, setting, value)
    images, labels = x.to(attack.device), y.to(attack.device)
    with _blamed(stage), torch.no_grad():
        adv = own.perturb(images, labels)
        broken = attack.get_logits(adv).max(dim=1)[1] != labels
    return {"x": adv.cpu(), "broken": broken.cpu(), "spent": counted.spent - before}


@contextmanager
def _blamed(part: str) -> Iterator[None]:
    """PyTorch's default arithmetic; what the network raises in a part of AutoAttack."""
    try:
        with default_precision():
            yield
    except BaseException as error:
        if not is_foreign(error):
            raise
        raise NotMeasuredError(f"AutoAttack's {part} failed: {blame(error)}") from error


def _judge_square(accuracies: dict[str, float]) -> None:
    """Run the library's own check of Square's breaks, which needs the whole evaluation."""
    try:
        from pyautoattack.checks import check_square_sr
    except ImportError:  # the name of older packagings
        from autoattack.checks import check_square_sr
    check_square_sr(accuracies, logger=logging.getLogger(_LOGGER))


def _prepared(
    model: nn.Module,
    threat: ThreatModel,
    version: AutoAttackVersion,
    seed: int,
    classes: int,
    device: torch.device,
) -> tuple[Any, list[str]]:
    try:
        from pyautoattack import AutoAttack
    except ImportError:
        try:
            from autoattack import AutoAttack  # the name of older packagings
        except ImportError:
            raise NotMeasuredError(
                "the reference library of AutoAttack is not installed: pip install pyautoattack, "
                "or have robaudit run it, by --preset standard or --engine native"
            ) from None

    attack = AutoAttack(
        model,
        norm=threat.norm.capitalize(),
        eps=threat.eps,
        version=version,
        seed=seed,
        device=device,
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

    @property
    def spent(self) -> Tensor:
        """Images so far, forwards and backwards."""
        return torch.tensor([self.forwards, self.backwards])

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
        # The library warns of few classes whatever attack runs; `runnable` has dealt with those.
        if not ("DLR loss" in said or "target classes" in said):
            # The library refers to a page in its repository, which is cut off here.
            self.warnings.append("AutoAttack: " + said.split(" See ")[0])

    def kept(self) -> dict[str, Tensor]:
        """The warnings as a tensor, to be cached with the batch during which they were logged."""
        said = "\n".join(dict.fromkeys(self.warnings)).encode()
        return {_SAID: torch.tensor(list(said), dtype=torch.uint8)} if said else {}

    @staticmethod
    def told(piece: dict[str, Tensor]) -> list[str]:
        """The warnings of a batch, cached or not."""
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
