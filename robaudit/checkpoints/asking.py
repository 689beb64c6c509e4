"""Accuracy of a checkpoint on a data set, before it is known which of its candidates it is."""

from __future__ import annotations

from pathlib import Path

import torch

from robaudit.checkpoints.choosing import combinations
from robaudit.checkpoints.from_file import proposal_from_file
from robaudit.checkpoints.loading import with_normalization
from robaudit.checkpoints.sources import is_source
from robaudit.checkpoints.suitability import suits
from robaudit.errors import RobauditError
from robaudit.request import CheckpointSpec
from robaudit.types import Examples

_SCREEN = 32
_FINALISTS = 4


def best_accuracy(source: str, asked: CheckpointSpec, examples: Examples) -> float:
    """The highest accuracy of its candidates; 0 where none takes the images.

    A network is far more accurate on the data it was trained on than on others, whatever its
    normalisation, so this tells data sets with images of the same size apart.

    Args:
        source: a checkpoint file; the accuracy of a zoo's name is 0.
    """
    if is_source(source):
        return 0.0
    try:
        inert = asked.changed(sha256=None, trust_pickle=False)  # a guess at data runs no file
        proposal = proposal_from_file(Path(source), asked.arch, inert, examples)
        proposal = with_normalization(proposal, asked.normalize)
    except RobauditError:
        return 0.0
    found = combinations([proposal], None, torch.device("cpu"))
    found = [one for one in found if suits(one.models[0], examples)]
    found.sort(key=lambda one: -one.look(examples, _SCREEN).accuracy)
    finalists = found[:_FINALISTS]
    return max((one.look(examples, len(examples)).accuracy for one in finalists), default=0.0)
