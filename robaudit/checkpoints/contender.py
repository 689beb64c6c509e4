"""A candidate network with a candidate normalisation, and what was seen of it on the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from robaudit.checkpoints.ascent import attacked, losses
from robaudit.checkpoints.classifier import Classifier, Trial
from robaudit.checkpoints.deciding import Evidence, likeliest
from robaudit.engine import Runner, device_of, frozen
from robaudit.errors import CheckpointError, NotMeasuredError
from robaudit.types import Examples, ThreatModel

# A candidate whose gradient is exactly zero on more of the images has not been attacked.
_MUTE = 0.5


class Contender:
    """The same network and normalisation for every checkpoint of a question.

    Attributes:
        models: one for each checkpoint.
        network: its place among the candidate networks.
        foreign: see :class:`~robaudit.checkpoints.deciding.Evidence`.
    """

    def __init__(self, models: Sequence[Classifier], network: int, foreign: bool) -> None:
        self.models = tuple(models)
        self.network = network
        nothing = torch.empty(len(models), 0)
        self.evidence = Evidence(
            nothing.double(), nothing.bool(), nothing.double(), nothing.bool(), foreign=foreign
        )

    @property
    def architecture(self) -> str:
        return self.models[0].origin.architecture

    @property
    def normalization(self) -> str:
        return self.models[0].origin.normalization

    def look(self, examples: Examples, n: int) -> Evidence:
        """Clean losses of the first ``n`` examples."""
        seen = self.evidence.clean.shape[1]
        n = min(n, len(examples))
        if n > seen:
            x, y = examples.x[seen:n], examples.y[seen:n]
            parts = [_judged(model, x, y) for model in self.models]
            clean, right = (torch.stack(column) for column in zip(*parts, strict=True))
            self.evidence = replace(
                self.evidence,
                clean=torch.cat([self.evidence.clean, clean], dim=1),
                right=torch.cat([self.evidence.right, right], dim=1),
            )
        return self.evidence

    def glance(self, examples: Examples, n: int) -> Evidence:
        """The first ``n`` examples, each by the next checkpoint, ``(1, n)``; not kept."""
        if len(self.models) == 1:
            return self.look(examples, n)
        n, files = min(n, len(examples)), len(self.models)
        clean, right = torch.empty(1, n, dtype=torch.float64), torch.empty(1, n, dtype=torch.bool)
        for k, model in enumerate(self.models):
            x, y = examples.x[k:n:files], examples.y[k:n:files]
            clean[0, k::files], right[0, k::files] = _judged(model, x, y)
        return replace(self.evidence, clean=clean, right=right)

    def attack(
        self, examples: Examples, m: int, threat: ThreatModel, tick: Callable[[], None]
    ) -> Evidence:
        """Robust losses of the first ``m`` examples, those attacked before left out."""
        seen = self.evidence.robust.shape[1]
        if m > seen:
            some = slice(seen, m)
            parts = [_attacked(model, examples.taken(some), threat, tick) for model in self.models]
            robust, stands, moved = (torch.stack(column) for column in zip(*parts, strict=True))
            mute = float((~moved).double().mean()) > _MUTE
            self.evidence = replace(
                self.evidence,
                robust=torch.cat([self.evidence.robust, robust], dim=1),
                stands=torch.cat([self.evidence.stands, stands], dim=1),
                mute=self.evidence.mute or mute,
            )
        return self.evidence

    def trial(self) -> Trial:
        """What is told of it, over all checkpoints of the question."""
        found = self.evidence
        stands = found.stands
        return Trial(
            self.architecture,
            self.normalization,
            right=int(found.right.sum()),
            n=found.right.numel(),
            loss=float(found.clean.mean()) if found.clean.numel() else None,
            stands=int(stands.sum()) if stands.numel() else None,
            attacked=stands.numel(),
        )


def _attacked(
    model: Classifier, examples: Examples, threat: ThreatModel, tick: Callable[[], None]
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`attacked`; of a network without gradients the clean losses."""
    x, y = examples.x, examples.y
    try:
        return attacked(model, x, y, examples.index, threat, tick)
    except NotMeasuredError:
        return *_judged(model, x, y), torch.zeros(len(y), dtype=torch.bool)


def _judged(model: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each image, and whether it is classified right."""
    try:
        with frozen(model):
            logits = Runner(model, device_of(model)).logits(x).cpu()
    except NotMeasuredError as error:
        raise CheckpointError(
            f"the network cannot be run on the images: {error.message}",
            "Check --data and --arch: channels and image size must be those of training.",
        ) from error
    return losses(logits, y), logits.argmax(1) == y


def best_of_each(
    among: Sequence[Contender], found: Mapping[Contender, Evidence] | None = None
) -> list[Contender]:
    """Each network's most accurate one, by other evidence than its own where that is given."""
    best: dict[int, tuple[float, Contender]] = {}
    for one in among:
        accuracy = (one.evidence if found is None else found[one]).accuracy
        if one.network not in best or accuracy > best[one.network][0]:
            best[one.network] = accuracy, one
    return [one for _, one in best.values()]


def most_likely(among: Sequence[Contender]) -> Contender:
    """Of the most accurate network, the one with the lowest of the losses training made small."""
    best = max(best_of_each(among), key=lambda one: one.evidence.accuracy)
    own = [one for one in among if one.network == best.network]
    return own[likeliest([one.evidence for one in own], range(len(own)))]
