"""Identification shared by the checkpoints of one command.

Those with the same keys and shapes, as the epochs of a run, are identified together: the outcomes
of a few of them are pooled, and all get the same architecture and normalisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch

from robaudit.checkpoints.choosing import Asked, choose
from robaudit.checkpoints.classifier import Classifier, Origin
from robaudit.checkpoints.combinations import Proposal
from robaudit.checkpoints.normalization import normalize_name
from robaudit.checkpoints.pooling import few
from robaudit.errors import CheckpointError

# Of an origin: what is the same for all checkpoints that are identified together.
_SHARED = (
    "architecture",
    "normalization",
    "normalized_by",
    "architecture_known",
    "normalization_known",
    "harmless",
    "trials",
)


class Answers:
    """Identifications by candidates.

    Attributes:
        pooled: the few whose outcomes are pooled, evenly over all, the first and the last included.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self.pooled = few(sources)
        self._known: dict[tuple[object, ...], Origin | CheckpointError] = {}

    def answer(
        self,
        proposal: Proposal,
        peers: Iterable[Proposal | None],
        asked: Asked,
        device: torch.device,
    ) -> Classifier:
        """The checkpoint as it is identified together with its peers.

        Args:
            peers: the proposals of ``pooled``.

        Raises:
            CheckpointError: see :func:`~robaudit.checkpoints.choosing.choose`; for every checkpoint
                with these candidates.
        """
        key = _candidates(proposal)
        if key not in self._known:
            pooled = [one for one in peers if one is not None and _candidates(one) == key]
            try:
                self._known[key] = choose(pooled or [proposal], asked, device)[0].origin
            except CheckpointError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, CheckpointError):
            raise known
        return _identified(proposal, known).to(device)


def _candidates(proposal: Proposal) -> tuple[object, ...]:
    """Equal for proposals with the same candidates."""
    labels = tuple(label for label, _ in proposal.networks)
    shapes = tuple(
        (key, tuple(value.shape)) for key, value in proposal.networks[0][1].state_dict().items()
    )
    names = tuple(map(normalize_name, proposal.normalizations))
    return (labels, shapes, names, proposal.origin.normalized_by)


def _identified(proposal: Proposal, known: Origin) -> Classifier:
    network = next(n for label, n in proposal.networks if label == known.architecture)
    normalization = next(
        n for n in proposal.normalizations if normalize_name(n) == known.normalization
    )
    shared = {name: getattr(known, name) for name in _SHARED}
    origin = replace(proposal.origin, **shared)
    return Classifier(network, normalization, origin)
