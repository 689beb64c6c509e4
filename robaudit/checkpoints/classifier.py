"""The network as every measurement sees it: images in [0, 1] in, logits out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.checkpoints.normalization import Normalization


@dataclass(frozen=True)
class Origin:
    """Where a classifier comes from, and how its parts were found.

    Attributes:
        source: the file's path, as it was given.
        sha256: of the file, or ``None`` where it was not computed.
        architecture: a name robaudit knows, or the user's ``module:factory``.
        identified_by: who says that it is this architecture.
        normalization: what ``--normalize`` takes for it; ``"none"`` for none.
        parameters: how many numbers the network was trained with.
        warnings: what the user should know before trusting a number.
        member: where in the file the state dict is; ``""`` when the whole file is it.
    """

    source: str
    sha256: str | None
    format: str
    architecture: str
    identified_by: str
    normalization: str
    parameters: int
    warnings: tuple[str, ...] = ()
    member: str = ""


class Classifier(nn.Module):
    """A network with its input normalisation inside, in evaluation mode, its parameters frozen.

    Args:
        network: maps normalised images ``(n, c, h, w)`` to logits ``(n, k)``.
        normalization: applied to the images first; ``None`` for none.
        origin: where it comes from.

    Parameters do not require gradients, so that no attack fills their ``grad``; whoever measures
    curvature turns that on for as long as it needs.
    """

    def __init__(
        self, network: nn.Module, normalization: Normalization | None, origin: Origin
    ) -> None:
        super().__init__()
        self.network = network
        self.normalization = normalization
        self.origin = origin
        self.mean: Tensor | None
        self.std: Tensor | None
        # Non-persistent: the state dict stays what the file holds, under "network.".
        self.register_buffer("mean", _column(normalization.mean if normalization else None), False)
        self.register_buffer("std", _column(normalization.std if normalization else None), False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, k)`` of images ``(n, c, h, w)`` in ``[0, 1]``.

        Raises:
            UsageError: the normalisation is for another number of channels.
        """
        if self.normalization is not None and self.mean is not None and self.std is not None:
            # A wrong count would broadcast where the images have one channel.
            self.normalization.for_channels(x.shape[-3])
            x = (x - self.mean) / self.std
        logits: Tensor = self.network(x)
        return logits


def _column(values: tuple[float, ...] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32)[:, None, None]
