"""Candidate networks with candidate normalisations, and their outcomes on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robaudit.checkpoints.ascent import attacked, losses
from robaudit.checkpoints.classifier import Classifier, Origin
from robaudit.checkpoints.deciding import Outcomes, likeliest
from robaudit.checkpoints.normalization import Normalization
from robaudit.engine import Runner, device_of, frozen
from robaudit.errors import CheckpointError, NotMeasuredError
from robaudit.schema import Evidence
from robaudit.types import Examples, ThreatModel

# A candidate whose gradient is exactly zero on more of the images has not been attacked.
_MUTE = 0.5


@dataclass(frozen=True)
class Proposal:
    """The networks that a checkpoint may be, with its weights, and its normalisations.

    Attributes:
        networks: label and network; several where keys and shapes cannot tell them apart.
        normalizations: the known one, or those to be tried, the most likely first.
        origin: what is known already; ``normalized_by`` is ``""`` where the normalisation is not.
    """

    networks: tuple[tuple[str, nn.Module], ...]
    normalizations: tuple[Normalization | None, ...]
    origin: Origin

    @property
    def open(self) -> bool:
        """Whether there is anything for the data to decide."""
        return len(self.networks) > 1 or len(self.normalizations) > 1


class Combination:
    """One network with one normalisation, for all checkpoints that are identified together.

    Attributes:
        models: one for each checkpoint.
        network: its place among the candidate networks.
        outcomes: on the images tried so far.
    """

    def __init__(self, models: Sequence[Classifier], network: int, foreign: bool) -> None:
        self.models = tuple(models)
        self.network = network
        nothing = torch.empty(len(models), 0)
        self.outcomes = Outcomes(
            nothing.double(), nothing.bool(), nothing.double(), nothing.bool(), foreign=foreign
        )

    @property
    def architecture(self) -> str:
        return self.models[0].origin.architecture

    @property
    def normalization(self) -> str:
        return self.models[0].origin.normalization

    def look(self, examples: Examples, n: int) -> Outcomes:
        """Clean losses of the first ``n`` examples."""
        seen = self.outcomes.clean.shape[1]
        n = min(n, len(examples))
        if n > seen:
            x, y = examples.x[seen:n], examples.y[seen:n]
            parts = [_judged(model, x, y) for model in self.models]
            clean, right = (torch.stack(column) for column in zip(*parts, strict=True))
            self.outcomes = replace(
                self.outcomes,
                clean=torch.cat([self.outcomes.clean, clean], dim=1),
                right=torch.cat([self.outcomes.right, right], dim=1),
            )
        return self.outcomes

    def glance(self, examples: Examples, n: int) -> Outcomes:
        """The first ``n`` examples, each by one checkpoint in turn, ``(1, n)``; not kept."""
        if len(self.models) == 1:
            return self.look(examples, n)
        n, files = min(n, len(examples)), len(self.models)
        clean, right = torch.empty(1, n, dtype=torch.float64), torch.empty(1, n, dtype=torch.bool)
        for k, model in enumerate(self.models):
            x, y = examples.x[k:n:files], examples.y[k:n:files]
            clean[0, k::files], right[0, k::files] = _judged(model, x, y)
        return replace(self.outcomes, clean=clean, right=right)

    def attack(
        self, examples: Examples, m: int, threat: ThreatModel, tick: Callable[[], None]
    ) -> Outcomes:
        """Robust losses of the first ``m`` examples; none is attacked twice."""
        seen = self.outcomes.robust.shape[1]
        if m > seen:
            some = slice(seen, m)
            parts = [_attacked(model, examples.taken(some), threat, tick) for model in self.models]
            robust, stands, moved = (torch.stack(column) for column in zip(*parts, strict=True))
            mute = float((~moved).double().mean()) > _MUTE
            self.outcomes = replace(
                self.outcomes,
                robust=torch.cat([self.outcomes.robust, robust], dim=1),
                stands=torch.cat([self.outcomes.stands, stands], dim=1),
                mute=self.outcomes.mute or mute,
            )
        return self.outcomes

    def trial(self) -> Evidence:
        """The outcomes over all checkpoints, for the report."""
        found = self.outcomes
        attacked = found.stands.numel()
        return Evidence(
            architecture=self.architecture,
            normalization=self.normalization,
            accuracy=int(found.right.sum()) / found.right.numel(),
            n=found.right.numel(),
            loss=float(found.clean.mean()) if found.clean.numel() else None,
            robust_accuracy=int(found.stands.sum()) / attacked if attacked else None,
            attacked=attacked,
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
    among: Sequence[Combination], found: Mapping[Combination, Outcomes] | None = None
) -> list[Combination]:
    """Each network's most accurate one, by other evidence than its own where that is given."""
    best: dict[int, tuple[float, Combination]] = {}
    for one in among:
        accuracy = (one.outcomes if found is None else found[one]).accuracy
        if one.network not in best or accuracy > best[one.network][0]:
            best[one.network] = accuracy, one
    return [one for _, one in best.values()]


def most_likely(among: Sequence[Combination]) -> Combination:
    """Of the most accurate network, the one with the lowest of the losses training made small."""
    best = max(best_of_each(among), key=lambda one: one.outcomes.accuracy)
    own = [one for one in among if one.network == best.network]
    return own[likeliest([one.outcomes for one in own])]
