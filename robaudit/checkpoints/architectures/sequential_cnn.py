"""A plain ``nn.Sequential`` of convolutions, activations and linear layers, as the verification
community trains them: the layers one after another, each at its index (:mod:`.tokens`).
"""

from __future__ import annotations

from torch import Tensor, nn

from robaudit.checkpoints.architectures.tokens import layers_of


class SequentialCNN(nn.Sequential):
    """The layers in turn; maps are flattened before the first linear one where no layer did."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, k)`` of images ``(n, c, h, w)``."""
        for layer in self:
            x = layer(x.flatten(1) if isinstance(layer, nn.Linear) else x)
        return x


def sequential_cnn(layers: str) -> nn.Module:
    """The network with these layers, joined by ``-``.

    Raises:
        ValueError: there is no such layer.

    >>> sequential_cnn("conv1x4k3s1p0-relu-flatten-linear144x10")
    SequentialCNN(
      (0): Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1))
      (1): ReLU()
      (2): Flatten(start_dim=1, end_dim=-1)
      (3): Linear(in_features=144, out_features=10, bias=True)
    )
    """
    return SequentialCNN(*layers_of(layers))
