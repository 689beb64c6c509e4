"""The fast tier: runs of Auto-PGD on the nearest classes, leaky gradients, random patches."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from robaudit.attacks.apgd import apgd
from robaudit.attacks.ensemble import Stage, in_turn
from robaudit.attacks.narrowing import Round, narrowing, passes
from robaudit.attacks.patches import patches
from robaudit.attacks.result import AttackResult
from robaudit.engine import Runner
from robaudit.engine.arguments import checked
from robaudit.engine.runner import BatchSize
from robaudit.types import Cache, Norm, Progress, ThreatModel, no_cache


@checked
def fast(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """The fast tier: short runs of Auto-PGD, more of them where they get furthest, then patches.

    APGD on cross-entropy comes first, in l1, where the ball has many corners, in several restarts.
    Then targeted APGD goes through the classes that MALT ranks nearest, with the network's
    gradients and with leaky ones, which see what ReLUs that are off hide
    (:mod:`robaudit.engine.leaky`), and on with the runs that got furthest
    (:mod:`robaudit.attacks.narrowing`). In linf random patches start from the points reached
    (:mod:`robaudit.attacks.patches`): they find what gradients do not show. A robust example costs
    at most 977 passes, forward and backward ones counted alike, against 9767 of AutoAttack's
    standard version; an example's result depends on no other example. The accuracy is no substitute
    for AutoAttack's. With fewer than four classes the targeted runs maximise the margin, because
    the targeted DLR loss needs four.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode
            with frozen parameters and is left as it was. Or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.
        seed: of all random draws.
        index: ``(n,)`` the examples' positions in their data set; each example's draws depend on
            its position and the seed only. ``0..n-1`` unless given.
        batch_size: images per pass on a GPU; no result depends on it. A Runner has its own.
        cache: keeps each finished part of the examples, so that an interrupted run can continue.
        progress: called with the work done and the work in all.

    Returns:
        All common fields and those of an ensemble; ``loss`` is ``nan``.

    Raises:
        NotMeasuredError: logits or losses that are not finite.

    Source: Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of
    diverse parameter-free attacks", ICML 2020 (APGD); Melamed, Yehudai & Shamir, "MALT powers up
    adversarial attacks", NeurIPS 2024 (the choice of targets); Andriushchenko et al., "Square
    Attack", ECCV 2020 (patches). That passes go to the hopeful runs follows Liu et al., "Practical
    evaluation of adversarial robustness via adaptive auto attack", CVPR 2022, within one example.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    >>> found = fast(net, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), ThreatModel("l2", 0.1))
    >>> tuple(found.accuracies)
    ('apgd-ce', 'apgd-malt')
    """
    with Runner.of(model, batch_size) as runner:
        return in_turn(
            runner,
            x,
            y,
            threat,
            partial(_stages, threat.norm),
            seed=seed,
            index=index,
            cache=cache,
            progress=progress,
        )


# The most passes on an example that is not broken: a tenth of the 9767 of AutoAttack.
MOST_PASSES = 977

# Steps and restarts of the untargeted runs by norm, the rounds of runs on classes and the slope of
# their leaky gradients, passes for patches. In l1 restarts end in different corners of the ball; in
# linf patches break what gradients cannot see.
_CE: dict[Norm, Round] = {"linf": Round(1, 20), "l2": Round(1, 80), "l1": Round(1, 24, 3)}
_ROUNDS: dict[Norm, tuple[Round, ...]] = {
    "linf": (Round(10, 8), Round(3, 40), Round(1, 100)),
    "l2": (Round(10, 8), Round(3, 50), Round(1, 80, 2)),
    "l1": (Round(10, 16), Round(3, 40), Round(1, 100)),
}
_SLOPES: dict[Norm, float] = {"linf": 0.02, "l2": 0.1, "l1": 0.2}
_PATCHES: dict[Norm, int] = {"linf": 303}


def _stages(norm: Norm, classes: int) -> list[Stage]:
    """The attacks of the tier, in order."""
    first, rounds = _CE[norm], _ROUNDS[norm]
    ce = partial(apgd, loss="ce", steps=first.steps, restarts=first.restarts)
    malt = partial(narrowing, rounds=rounds, slope=_SLOPES[norm])
    targets = min(rounds[0].runs // 2, classes - 1)
    stages = [
        Stage("apgd-ce", ce, first.passes(norm)),
        Stage("apgd-malt", malt, passes(rounds, classes, norm), targets),
    ]
    if norm in _PATCHES:
        blind = partial(patches, most=_PATCHES[norm])
        stages.append(Stage("patches", blind, _PATCHES[norm], goes_on=True))
    return stages
