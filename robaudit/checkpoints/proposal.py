"""What a checkpoint may be, before the data has had its say."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from robaudit.checkpoints.classifier import Origin
from robaudit.checkpoints.normalization import Normalization


@dataclass(frozen=True)
class Proposal:
    """The networks a checkpoint may be, each with its weights in, and its possible normalisations.

    Attributes:
        networks: by what they are called; several where keys and shapes cannot tell them apart.
        normalizations: the one that is settled, or those to be tried, the most likely first.
        origin: what is known already; its ``normalized_by`` is ``""`` where nobody says which
            normalisation it is.
    """

    networks: tuple[tuple[str, nn.Module], ...]
    normalizations: tuple[Normalization | None, ...]
    origin: Origin

    @property
    def open(self) -> bool:
        """Whether there is anything for the data to decide."""
        return len(self.networks) > 1 or len(self.normalizations) > 1
