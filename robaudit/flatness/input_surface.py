"""The loss around images: the sign of its gradient against a random sign pattern."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robaudit.attacks.objectives import cross_entropy
from robaudit.engine import Runner, device_of, frozen, sign_rows
from robaudit.engine.arguments import checked
from robaudit.engine.runner import BatchSize
from robaudit.flatness.landscape import Surface
from robaudit.types import ORDERS, Progress, ThreatModel


@checked
def input_surface(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    s: Tensor,
    t: Tensor,
    *,
    seed: int = 0,
    index: Tensor | None = None,
    batch_size: BatchSize = "auto",
    progress: Progress | None = None,
) -> Surface:
    """``L(x + s sign(grad_x L) + t r)`` with ``r`` a random sign pattern for each image.

    Both directions move every pixel by one, so ``s`` and ``t`` are changes of pixel values. Images
    are clipped to ``[0, 1]``, outside which the classifier is not defined.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode and its
            parameters are left as they were.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        s, t: ``(p,)`` and ``(q,)`` places along the gradient's signs and along the random ones.
        seed: of the random sign patterns.
        index: ``(n,)`` the examples' positions in their data set, which seed their patterns.
        batch_size: images per pass on a GPU; no result depends on it beyond rounding.
        progress: called with the work done and the work in all.

    Returns:
        The clean losses of every example, in nats.

    Raises:
        NotMeasuredError: the logits have no gradient in the image.

    Source: Jin et al., "Randomized adversarial training via Taylor expansion", CVPR 2023, Fig. 2.

    >>> net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
    >>> s = torch.tensor([-0.1, 0.0, 0.1])
    >>> input_surface(net, x, torch.zeros(3).long(), s, s).clean.shape
    torch.Size([3, 3, 3])
    """
    index = torch.arange(len(x)) if index is None else index
    across = sign_rows(x.shape[1:], index, seed, "rademacher", device=x.device)
    with frozen(model):
        runner = Runner(model, device_of(model), batch_size)
        _, gradient, _ = runner.gradient(cross_entropy, x, y)
        along = gradient.sign().to(x.device)
        rows = []
        for b in t.tolist():
            for a in s.tolist():
                moved = (x + a * along + b * across).clamp(0, 1)
                rows.append(cross_entropy(runner.logits(moved).cpu(), y.cpu()).double())
                if progress is not None:
                    progress(len(rows), len(s) * len(t))
    return Surface(s, t, torch.stack(rows).reshape(len(t), len(s), len(x)), None)


def usual_reach(threat: ThreatModel, pixels: int) -> float:
    """Twice the pixel change that, made to every pixel, reaches the threat model's radius."""
    edge: float = pixels ** -(1 / ORDERS[threat.norm])
    return 2 * threat.eps * edge
