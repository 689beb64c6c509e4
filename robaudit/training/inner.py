"""The inner maximisation of adversarial training: projected gradient ascent, last iterate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from robaudit.engine import frozen
from robaudit.engine.projections import Ball, per_image

if TYPE_CHECKING:
    from robaudit.types import Images, ThreatModel


@contextmanager
def attacked(model: nn.Module) -> Iterator[None]:
    """The model frozen as :func:`robaudit.engine.frozen` does, in the caller's own arithmetic.

    A measurement must not be rounded to TF32; the examples of a training step may be.
    """
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    kept = {
        "enabled": cudnn.enabled,
        "benchmark": cudnn.benchmark,
        "deterministic": cudnn.deterministic,
        "allow_tf32": cudnn.allow_tf32,
    }
    with frozen(model), cudnn.flags(**kept):
        torch.set_float32_matmul_precision(matmul)
        yield


def maximise(
    objective: Callable[[Tensor], Tensor],
    x: Images,
    threat: ThreatModel,
    *,
    steps: int = 10,
    step_size: float | None = None,
    generator: torch.Generator | None = None,
    going: Callable[[], Tensor] | None = None,
) -> Images:
    """Perturbed images that maximise ``objective``: ``x'_{t+1} = P(x'_t + a d_t)``, last iterate.

    ``d_t`` is the steepest ascent direction of ``objective`` at ``x'_t`` in the threat model's norm
    (the gradient's sign, or the gradient over its l2 norm), ``P`` the projection on the ball and on
    ``[0, 1]``. The start is uniform in the ball, or in l1 projected normal noise. Unlike an
    attack that measures robustness, this returns the last iterate, not the best one: that is the
    published training procedure. The arithmetic is the caller's, TF32 or autocast included.

    Args:
        objective: maps perturbed images ``(n, c, h, w)`` to a scalar, a sum or a mean over examples
            (the direction of each example does not depend on the scale).
        x: clean images ``(n, c, h, w)`` in ``[0, 1]``.
        threat: norm and radius.
        steps: how many ascent steps.
        step_size: ``a``; ``eps / 4`` unless given.
        generator: source of the random start, on the device of ``x``.
        going: called after each ascended value; which examples take the step, ``(n,)``. Without it
            all do.

    Returns:
        ``(n, c, h, w)`` perturbed images, detached.

    Source: A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks",
    ICLR 2018, section 2.1.

    >>> from robaudit.types import ThreatModel
    >>> x = torch.full((1, 1, 2, 2), 0.5)
    >>> maximise(torch.sum, x, ThreatModel("linf", 0.25)).flatten().tolist()
    [0.75, 0.75, 0.75, 0.75]
    """
    size = threat.eps / 4 if step_size is None else step_size
    ball = Ball(x, threat)
    moved = ball.project_(x + _start(x, threat, generator))
    for _ in range(steps):
        moved.requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(moved), moved)
        with torch.no_grad():
            stepped = ball.step(moved, gradient, size)
            if going is not None:
                stepped = torch.where(per_image(stepped, going()), stepped, moved)
            moved = stepped
    return moved.detach()


def _start(x: Tensor, threat: ThreatModel, generator: torch.Generator | None) -> Tensor:
    # Drawn for the batch at once: training is reproducible by its order, and one generator per
    # example, as measurements use, would cost more here than the ascent itself.
    if threat.norm == "linf":
        noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return threat.eps * (2 * noise - 1)
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    if threat.norm == "l1":
        return noise
    shape = (len(x), *[1] * (x.dim() - 1))
    radius = torch.rand(shape, generator=generator, device=x.device, dtype=x.dtype)
    # The share of the ball's volume within radius r is r^d, hence the d-th root.
    radius = threat.eps * radius ** (1 / x[0].numel())
    start: Tensor = radius * noise / noise.flatten(1).norm(dim=1).view(shape)
    return start
