"""The network that every measurement runs: images in [0, 1] in, logits out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robaudit.brief import shortened, wrapped
from robaudit.checkpoints.normalization import Normalization
from robaudit.engine.logits import logits_of
from robaudit.schema import Evidence, Known


@dataclass(frozen=True)
class Origin:
    """Where a classifier comes from, and how its parts were found.

    Attributes:
        source: the file's path, as it was given.
        sha256: of the file, or ``None`` where it was not computed.
        architecture: a name robaudit knows, or the user's ``module:factory``.
        identified_by: what the architecture is known from.
        normalization: what ``--normalize`` takes for it; ``"none"`` for none.
        normalized_by: what the normalisation is known from.
        architecture_known, normalization_known: ``said`` by the user or the file; ``determined`` by
            data that excludes every other candidate with another robust accuracy; or ``assumed``, a
            guess. See ``docs/explanation/normalization.md``.
        harmless: other candidates that are left, with the same robust accuracy.
        parameters: number of trained weights.
        warnings: reasons to doubt the numbers.
        member: where in the file the state dict is; ``""`` for the whole file.
        trials: the candidates that were tried on data.
        claims: clean accuracies recorded in the checkpoint, as fractions, by name.
        robust_claims: recorded robust accuracies, in unknown threat models.
        epoch: of training, where the file records one.
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
    normalized_by: str = ""
    architecture_known: Known = "said"
    normalization_known: Known = "said"
    harmless: str = ""
    trials: tuple[Evidence, ...] = ()
    claims: Mapping[str, float] = field(default_factory=dict)
    robust_claims: Mapping[str, float] = field(default_factory=dict)
    epoch: float | None = None


class Classifier(nn.Module):
    """A network with its input normalisation inside, in evaluation mode, its parameters frozen.

    Args:
        network: maps normalised images ``(n, c, h, w)`` to logits ``(n, k)``.
        normalization: applied to the images first; ``None`` for none.
        origin: where it comes from.

    Parameters do not require gradients, so that attacks do not fill their ``grad``; curvature
    measures turn that on while they run.
    """

    guards_calls = True

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

    def __repr__(self) -> str:
        origin = self.origin
        return wrapped(
            "Classifier",
            [
                origin.architecture,
                f"{origin.parameters:,} parameters",
                f"normalization={origin.normalization!r}",
                f"source={shortened(origin.source)}",
                f"network=<{type(self.network).__name__}>",
            ],
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, k)`` of images ``(n, c, h, w)`` in ``[0, 1]``.

        See :func:`~robaudit.engine.logits.logits_of`.

        Raises:
            UsageError: the normalisation is for another number of channels.
            NotMeasuredError: the network's output is no logits.
        """
        return logits_of(self.network, self.normalized(x))

    def normalized(self, x: Tensor) -> Tensor:
        """The network's input: ``(x - mean) / std`` per channel.

        Args:
            x: images ``(n, c, h, w)`` in ``[0, 1]``.

        Raises:
            UsageError: the normalisation is for another number of channels.
        """
        if self.normalization is None or self.mean is None or self.std is None:
            return x
        # A wrong count would broadcast where the images have one channel.
        self.normalization.for_channels(x.shape[-3])
        return (x - self.mean) / self.std


def _column(values: tuple[float, ...] | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32)[:, None, None]
