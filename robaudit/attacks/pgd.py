"""Projected gradient descent, on cross-entropy (PGD) or on the margin (CW)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from robaudit.attacks.best_iterates import BestIterates
from robaudit.attacks.driver import Chunk, run_in_parts
from robaudit.attacks.objectives import LossName
from robaudit.attacks.pgd_restarts import Restarts
from robaudit.attacks.result import AttackResult
from robaudit.engine import TILE, Asked, Runner, accelerate, voted
from robaudit.engine.arguments import checked
from robaudit.engine.images import rows_of
from robaudit.engine.precision import candidates, coarsest
from robaudit.engine.projections import project, random_start
from robaudit.engine.runner import BatchSize
from robaudit.errors import UsageError
from robaudit.types import Cache, Progress, ThreatModel, no_cache

# Examples in one part, and bytes of one tensor of them: they bound memory and change no result.
_CHUNK, _BYTES_CPU, _BYTES_GPU = 16 * TILE, 1 << 26, 1 << 29


@checked
def pgd(
    model: nn.Module | Runner,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    loss: LossName = "ce",
    mode: Literal["loss", "accuracy"] = "loss",
    last_iterate: bool = False,
    samples: int | None = None,
    seed: int = 0,
    index: Tensor | None = None,
    start: Tensor | None = None,
    precision: Asked = "auto",
    batch_size: BatchSize = "auto",
    searcher: Runner | None = None,
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> AttackResult:
    """Projected gradient descent: maximise a loss over each image's ball; keep the best iterate.

    ``x_{t+1} = P(x_t + a d_t)`` from a uniform random point of the ball, with ``d_t = sign(g)`` in
    linf, ``g / ||g||_2`` in l2 and signs on the hundredth of the pixels with the largest gradients
    in l1; ``P`` is the projection on the ball and on ``[0, 1]``. The clean image counts as an
    iterate, so the loss is never below the clean loss.

    Args:
        model: maps images in ``[0, 1]`` to logits ``(n, k)``; it runs in evaluation mode
            with frozen parameters and is left as it was. Or a :class:`robaudit.engine.Runner`.
        x, y: images ``(n, c, h, w)`` in ``[0, 1]`` and labels ``(n,)`` from 0.
        threat: norm and radius of the perturbations.
        steps: gradient steps per restart.
        step_size: ``a``, in units of the norm; ``eps / 4`` unless given.
        restarts: random starts; the worst over all of them counts.
        loss: ``ce``, cross-entropy, or ``margin``, ``max_{i != y} z_i - z_y`` (in linf with 20
            steps the CW-20 of the RAT paper).
        mode: ``loss`` runs every example to the end, for robust losses; ``accuracy`` stops an
            example as soon as it is misclassified.
        last_iterate: count only the last iterate of each restart, as tables in papers mostly do,
            instead of the worst one; only with ``mode="loss"``.
        samples: for a network that draws at random, the draws that vote on a verdict and over which
            a gradient is averaged (:mod:`robaudit.engine.voting`). Unless given, ten where the
            network draws and one elsewhere. Not for a Runner.
        seed: of all random draws.
        index: ``(n,)`` the examples' positions in their data set; each example's draws depend on
            its position and the seed only. ``0..n-1`` unless given.
        start: ``(n, c, h, w)`` where the first restart begins, instead of a random point; projected
            on the ball and the box.
        precision: of the search, as in :func:`robaudit.engine.accelerate`. The network is searched
            in its fastest form, or, for losses in float32, as it stands. Whatever the search finds
            is judged by the network as it stands in float32. Not for a Runner, which has its own.
        batch_size: images per pass on a GPU; no result depends on it. A Runner has its own.
        searcher: the Runner that searches, instead of the fastest form; ``model`` judges.
        cache: keeps each finished part of the examples, so that an interrupted run can continue.
        progress: called with the work done and the work in all.

    Returns:
        All common fields, ``broken_x``, ``stuck``, ``reached`` and ``searched``. Where the network
        was not searched as it stands, the iterates that count for losses and verdicts are those
        that it judged: the clean image, and of each restart the one with the highest objective and
        a misclassified one. An example of which the search alone sees a break is attacked again
        with the network as it stands.

    Raises:
        UsageError: ``last_iterate`` with ``mode="accuracy"``.
        NotMeasuredError: logits or losses that are not finite.

    Source: Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR
    2018, section 2.1; the margin from Carlini & Wagner, "Towards evaluating the robustness of
    neural networks", 2017.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> found = pgd(net, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), ThreatModel("linf", 0.1))
    >>> found.x.shape, bool((found.robust <= found.correct).all())
    (torch.Size([3, 1, 2, 2]), True)
    """
    if last_iterate and mode == "accuracy":
        raise UsageError(
            "last_iterate needs mode='loss'",
            "In mode 'accuracy' an example is done as soon as any iterate is misclassified.",
        )
    network = model if isinstance(model, Runner) else voted(model, x, samples, seed)
    with Runner.of(network, batch_size) as runner:
        if searcher is None and isinstance(network, nn.Module):
            searcher = _searcher(runner, network, x, threat, precision, mode)
        step = threat.eps / 4 if step_size is None else step_size

        def attack(part: Chunk) -> dict[str, Tensor]:
            best = BestIterates(part, loss)
            given = None if start is None else rows_of(start, part.rows, runner.device)
            work, done = len(part.y) * restarts * (steps + 1), 0

            def tick(passes: int) -> None:
                nonlocal done
                done += passes
                part.tick(done / work)

            def begin(rows: Tensor, restart: int) -> Tensor:
                clean = part.x[rows]
                if given is not None and restart == 0:
                    return project(given.to(clean)[rows], clean, threat)
                return random_start(clean, part.index[rows], threat, seed, restart)

            how = begin, threat, step, steps, restarts, mode == "accuracy", last_iterate, tick
            Restarts(*how).run(runner, searcher, best)
            return best.fields()

        cpu = runner.device.type == "cpu"
        most, budget = (_CHUNK, _BYTES_CPU) if cpu else (4 * runner.per_round, _BYTES_GPU)
        size = max(TILE, min(max(_CHUNK, most), budget // (4 * x[0].numel()) // TILE * TILE))
        found = run_in_parts(
            runner, x, y, index, size, attack, searcher=searcher, cache=cache, progress=progress
        )
        return replace(found, searched=(searcher or runner).network.precision)


def _searcher(
    runner: Runner,
    network: nn.Module,
    x: Tensor,
    threat: ThreatModel,
    precision: Asked,
    mode: Literal["loss", "accuracy"],
) -> Runner | None:
    """What searches: the fastest form of the network; ``None`` for the network as it stands.

    Losses are searched in float32 with the network as it stands.
    """
    if mode == "loss" and coarsest(candidates(precision, runner.device)) == "fp32":
        return None
    found = accelerate(network, x.shape[1:], precision, examples=x, threat=threat)
    if mode == "loss" and found.precision == "fp32":
        return None
    return Runner(found.forward, runner.device, runner.batch, precision=found.precision)
