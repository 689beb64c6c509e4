"""Checkpoints of one command: those with the same keys and shapes are one question.

The evidence of a few of them is pooled, and all get its answer: a curve over epochs is then one of
one network.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch

from robaudit.checkpoints.choosing import Asked, choose
from robaudit.checkpoints.classifier import Classifier, Origin
from robaudit.checkpoints.normalization import normalize_name
from robaudit.checkpoints.pooling import few
from robaudit.checkpoints.proposal import Proposal
from robaudit.errors import CheckpointError

Question: TypeAlias = tuple[object, ...]


class Answers:
    """What has been found out for some checkpoints.

    Attributes:
        some: the few whose evidence is pooled, evenly over all, the first and the last among them.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self.some = few(sources)
        self._known: dict[Question, Origin | CheckpointError] = {}

    def answer(
        self,
        proposal: Proposal,
        peers: Iterable[Proposal | None],
        asked: Asked,
        device: torch.device,
    ) -> Classifier:
        """The checkpoint as the answer to its question says.

        Args:
            peers: what the checkpoints of ``some`` may be.

        Raises:
            CheckpointError: as of :func:`~robaudit.checkpoints.choosing.choose`, for every
                checkpoint of the question.
        """
        question = _question(proposal)
        if question not in self._known:
            pooled = [one for one in peers if one is not None and _question(one) == question]
            try:
                found = choose(pooled or [proposal], asked, device)[0].origin
            except CheckpointError as error:
                self._known[question] = error
            else:
                self._known[question] = found
        known = self._known[question]
        if isinstance(known, CheckpointError):
            raise known
        return _as_answered(proposal, known).to(device)


def _question(proposal: Proposal) -> Question:
    """Equal where the candidates are, and what is known of them."""
    labels = tuple(label for label, _ in proposal.networks)
    shapes = tuple(
        (key, tuple(value.shape)) for key, value in proposal.networks[0][1].state_dict().items()
    )
    names = tuple(map(normalize_name, proposal.normalizations))
    return (labels, shapes, names, proposal.origin.normalized_by)


def _as_answered(proposal: Proposal, answer: Origin) -> Classifier:
    network = next(n for label, n in proposal.networks if label == answer.architecture)
    normalization = next(
        n for n in proposal.normalizations if normalize_name(n) == answer.normalization
    )
    origin = replace(
        proposal.origin,
        architecture=answer.architecture,
        normalization=answer.normalization,
        normalized_by=answer.normalized_by,
        architecture_known=answer.architecture_known,
        normalization_known=answer.normalization_known,
        harmless=answer.harmless,
        trials=answer.trials,
    )
    return Classifier(network, normalization, origin)
