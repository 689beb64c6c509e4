"""What is odd about a network before a single attack: reasons not to trust the numbers to come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from robaudit.audit.context import Context
from robaudit.audit.doubts import Doubt, Findings
from robaudit.audit.failures import not_measured
from robaudit.audit.gradients import gradients
from robaudit.checkpoints.files.reading import check_finite
from robaudit.engine import device_of, frozen
from robaudit.errors import CheckpointError, NotMeasuredError
from robaudit.schema import Measurement
from robaudit.statistics import clopper_pearson
from robaudit.types import ORDERS, ThreatModel

_VOTED = (
    "the network's output is random: accuracies and losses are of the classifier that {} of its "
    "draws vote for, whose noise the seed fixes; attacks follow gradients averaged over as many "
    "others"
)
_IMAGES = 64
_PIECE = 16
# Batch composition moves logits by rounding alone, unless the network looks at its neighbours.
_ROUNDING = 1e-3


def sanity(context: Context) -> Findings:
    """What is odd about the model's weights, outputs and gradients on the first examples.

    That it raises there is one of them; what is measured afterwards will say it again.

    Raises:
        CheckpointError: weights or logits are not finite, so that no number would mean anything.
    """
    try:
        with not_measured():
            return _findings(context)
    except NotMeasuredError as error:
        found = Findings()
        text = f"the checks before the attacks could not be made: {error.message}"
        found.add([Doubt("attacks", text)])
        return found


def _findings(context: Context) -> Findings:
    examples = context.splits[context.main]
    x = examples.x[:_IMAGES]
    model, device = context.model, device_of(context.model)
    found = Findings()
    own = context.own
    check_finite({**dict(own.named_parameters()), **dict(own.named_buffers())}, "the network")
    with frozen(model):
        found.add([*_training(own), *_radius(context.threat, x[0].numel())])
        if context.samples is not None:
            found.add([_VOTED.format(context.samples)])
        with torch.no_grad():
            logits = model(x.to(device)).float().cpu()
            piece = model(x[:_PIECE].to(device)).float().cpu()
        broken = ~torch.isfinite(logits).all(1)
        if bool(broken.any()):
            raise CheckpointError(
                f"the network's logits are not finite for {_share(broken)} of {len(x)} images",
                "Check --normalize and the weights: no robustness can be measured.",
            )
        found.add(_outputs(logits, piece, context.samples is not None))
        if len(x) > 1 and bool((logits == logits[0]).all()):
            found.add(["the model returns the same output for every image"])
        elif not context.described:  # else its gradient is meant to differ
            found.add(gradients(context, x))
    return found


def claims(model: nn.Module, measurements: list[Measurement], split: str) -> list[str]:
    """Where the measured clean accuracy is not the one that the checkpoint's maker recorded."""
    recorded: Mapping[str, float] = getattr(getattr(model, "origin", None), "claims", {})
    clean = [m for m in measurements if m.name == "accuracy.clean" and m.split == split]
    if not recorded or not clean or clean[0].value is None or clean[0].n is None:
        return []
    measured, n = clean[0].value, clean[0].n
    interval = clopper_pearson(round(measured * n), n, 0.99)
    return [
        f"the checkpoint records {name} = {said:.1%}, but clean accuracy is {measured:.1%} "
        f"[{interval.low:.1%}, {interval.high:.1%}]: other data, another normalisation, or another "
        "epoch's weights"
        for name, said in recorded.items()
        if not interval.low <= said <= interval.high
    ]


def _training(model: nn.Module) -> Iterator[str]:
    """Layers that stay in training mode when they are told to leave it."""
    stuck = [name or type(m).__name__ for name, m in model.named_modules() if m.training]
    if stuck:
        yield (
            f"{len(stuck)} layers stay in training mode ({', '.join(stuck[:3])}): dropout and "
            "batch statistics there make the output random or dependent on the batch"
        )


def _radius(threat: ThreatModel, d: int) -> Iterator[str]:
    """A ball as large as the box holds every image there is."""
    widest = d ** (1 / ORDERS[threat.norm])
    if threat.eps >= widest:
        yield (
            f"eps {threat.eps:g} is as large as the box [0, 1] itself: every image may become any "
            "other, and no network is robust to that; radii are in units of [0, 1], so perhaps "
            f"{threat.eps:g}/255 was meant"
        )
    elif threat.eps >= widest / 2:
        yield (
            f"within eps {threat.eps:g} every image may become the grey one: whatever stands was "
            "not attacked well enough"
        )


def _outputs(logits: Tensor, piece: Tensor, random: bool) -> Iterator[str | Doubt]:
    moved = float((piece - logits[: len(piece)]).abs().max())
    if not random and moved > _ROUNDING * max(1.0, float(logits.abs().max())):
        yield Doubt(
            "attacks",
            "the model's output for an image depends on the batch it is in (by up to "
            f"{moved:.2g}): batch norm without running statistics, or the like; its numbers hold "
            "for no other batches than these",
        )
    sums_to_one = bool(((logits.sum(1) - 1).abs() < 1e-3).all())
    if sums_to_one and bool((logits >= 0).all()):
        yield Doubt(
            "attacks",
            "the model returns probabilities, not logits: gradients vanish where it is sure, "
            "attacks look weaker than they are and losses are of no use; audit it without its "
            "softmax",
        )


def _share(which: Tensor) -> str:
    return f"{float(which.float().mean()):.0%}"
