"""Self-supervision by rotations: a second head that tells by how much an image is turned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.engine import device_of, seed_for
from robaudit.engine.calls import observed
from robaudit.engine.logits import Forward
from robaudit.errors import UsageError
from robaudit.training.trh import top_layer

if TYPE_CHECKING:
    from robaudit.training.objectives import Objective
    from robaudit.types import Images, Logits


@dataclass(frozen=True)
class Rotations:
    """``L + weight mean_r E[CE(h(z(x'_r)), r)]``, ``L`` the objective's loss.

    ``z`` are the inputs of the network's last linear layer and ``h`` is another linear layer on
    them. ``x_r`` is the image turned by ``r`` quarter turns, ``r = 0, 1, 2, 3``, and ``x'_r``
    ascends ``CE(h(z(x_r)), r)`` with the objective's attack. The objective's own examples and the
    ``4 n`` turned ones go through the network as one batch, whose statistics batch norm takes.

    The head is no part of the network: optimise its parameters with the network's.

    Attributes:
        layer: the network's last linear layer.
        head: ``h``.
        weight: of the mean cross-entropy of the turns; the authors' code has 0.5.

    Source: D. Hendrycks et al., "Using Self-Supervised Learning Can Improve Model Robustness and
    Uncertainty", NeurIPS 2019, as in the authors' public code.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> Rotations.of(network, torch.rand(2, 1, 4, 4)).head
    Linear(in_features=8, out_features=4, bias=True)
    """

    layer: nn.Module
    head: nn.Linear
    weight: float = 0.5

    @classmethod
    def of(cls, model: nn.Module, x: Images, weight: float = 0.5, seed: int = 0) -> Rotations:
        """With a new head for the network, on its device.

        Args:
            model: the network.
            x: images ``(n, c, h, w)`` like those that it is trained on.
            weight: of the turns' loss.
            seed: of the head's weights.

        Raises:
            UsageError: the images are not square, or the network does not end in a linear layer.
        """
        if x.shape[-1] != x.shape[-2]:
            height, width = x.shape[-2:]
            raise UsageError(
                f"[rotations] turns square images, not {height} x {width}",
                "Leave [rotations] out.",
            )
        layer = top_layer(model, x[:1])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(seed, "rotations"))
            head = nn.Linear(layer.in_features, 4)
        return cls(layer, head.to(device_of(model)), weight)

    def examples(
        self,
        objective: Objective,
        model: nn.Module,
        x: Images,
        generator: torch.Generator | None = None,
    ) -> Images:
        """Adversarial examples ``(4 n, c, h, w)`` of all turned images, those of a turn together.

        Args:
            objective: whose attack makes them.
            model: the network.
            x: images ``(n, c, h, w)`` of the batch.
            generator: of the attack's draws.
        """
        both = turned(x)
        return objective.examples(
            model, both, turns(both), generator, lambda images: self.logits(model, images)[1]
        )

    def beside(self, model: nn.Module, moved: Images) -> Beside:
        """The network as an objective's loss calls it, with the turned examples in its batch."""
        return Beside(self, model, moved)

    def logits(self, model: Forward, x: Images) -> tuple[Logits, Logits]:
        """The network's ``(n, k)`` and the head's ``(n, 4)``."""
        with observed({"": self.layer}) as calls:
            logits = model(x)
        return logits, self.head(calls[-1].inputs[0])


class Beside:
    """A network whose batch has the turned examples behind those that it is called with.

    Attributes:
        loss: of the turns in the last call, times the weight.
    """

    def __init__(self, rotations: Rotations, model: nn.Module, moved: Images) -> None:
        self._rotations, self._model, self._moved = rotations, model, moved
        self.loss = torch.zeros(())

    def __call__(self, x: Images) -> Logits:
        n = len(x)
        logits, found = self._rotations.logits(self._model, torch.cat([x, self._moved]))
        self.loss = self._rotations.weight * F.cross_entropy(found[n:], turns(self._moved))
        return logits[:n]


def turned(x: Images) -> Images:
    """The images turned by 0, 1, 2 and 3 quarter turns, ``(4 n, c, h, h)``.

    >>> turned(torch.tensor([[[[1, 2], [3, 4]]]]))[1, 0]
    tensor([[2, 4],
            [1, 3]])
    """
    return torch.cat([x.rot90(r, (2, 3)) for r in range(4)])


def turns(x: Images) -> Tensor:
    """The quarter turns of :func:`turned` images, ``(4 n,)``."""
    return torch.arange(4, device=x.device).repeat_interleave(len(x) // 4)
