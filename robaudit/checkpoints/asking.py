"""How well a checkpoint does on a data set, whichever of its candidates it is."""

from __future__ import annotations

from pathlib import Path

import torch

from robaudit.checkpoints.classifier import Classifier
from robaudit.checkpoints.from_file import Reading, proposal_from_file
from robaudit.checkpoints.normalization import parse_normalization
from robaudit.checkpoints.sources import is_source
from robaudit.engine import frozen
from robaudit.engine.raised import is_foreign
from robaudit.errors import RobauditError
from robaudit.types import Examples

_SCREEN = 32
_FINALISTS = 4


def best_accuracy(
    source: str,
    examples: Examples,
    *,
    arch: str | None = None,
    normalize: str | None = None,
    member: str | None = None,
    weights: str | None = None,
) -> float:
    """The accuracy of the candidate that is right most often; 0 where none takes the images.

    A network is far better on its own data than on others, whatever its normalisation, so that
    this tells sets of the same images and classes apart.
    """
    if is_source(source):
        return 0.0
    try:
        proposal = proposal_from_file(Path(source), arch, Reading(member, weights), examples)
        asked = None if normalize is None else parse_normalization(normalize)
    except RobauditError:
        return 0.0
    normalizations = proposal.normalizations if normalize is None else (asked,)
    models = [
        Classifier(network, normalization, proposal.origin)
        for _, network in proposal.networks
        for normalization in normalizations
    ]
    screened = sorted(models, key=lambda model: -_accuracy(model, examples, _SCREEN))
    finalists = screened[:_FINALISTS]
    return max((_accuracy(model, examples, len(examples)) for model in finalists), default=0.0)


def _accuracy(model: Classifier, examples: Examples, n: int) -> float:
    x, y = examples.x[:n], examples.y[:n]
    try:
        with frozen(model), torch.no_grad():
            right = model(x).argmax(1) == y
    except BaseException as error:
        if not is_foreign(error):
            raise
        return 0.0
    return float(right.float().mean())
