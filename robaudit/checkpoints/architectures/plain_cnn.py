"""A chain of layers under names of their own: ``conv1``, ``conv2``, ``fc1``, ``fc2`` and the like.

PyTorch's tutorials, advertorch and auto_LiRPA write small networks so, and pool and activate in
``forward``, where a state dict does not show it.
"""

from __future__ import annotations

from torch import Tensor, nn

from robaudit.checkpoints.architectures.tokens import layers_of


class PlainCNN(nn.Module):
    """The layers in turn, those with weights under their names."""

    def __init__(self, layers: list[nn.Module], names: list[str]) -> None:
        super().__init__()
        left = list(names)
        self.order = []
        for at, layer in enumerate(layers):
            weights = any(True for _ in layer.parameters())
            if weights and not left:
                raise ValueError(f"there are more layers with weights than names: {len(names)}")
            name = left.pop(0) if weights else f"step{at}"
            _place(self, name.split("."), layer)
            self.order.append(name)
        if left:
            raise ValueError(f"there are more names than layers with weights: {', '.join(left)}")

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, k)`` of images ``(n, c, h, w)``."""
        for name in self.order:
            layer = self.get_submodule(name)
            x = layer(x.flatten(1) if isinstance(layer, nn.Linear) else x)
        return x


def _place(parent: nn.Module, path: list[str], layer: nn.Module) -> None:
    for part in path[:-1]:
        if part not in parent._modules:
            parent.add_module(part, nn.Module())
        parent = parent.get_submodule(part)
    if path[-1] in parent._modules:
        raise ValueError(f"{path[-1]} is named twice")
    parent.add_module(path[-1], layer)


def plain_cnn(layers: str, names: str) -> nn.Module:
    """The network with these layers (:mod:`.tokens`), and the names of those with weights.

    Both are joined by ``-``.

    Raises:
        ValueError: there is no such layer, or the names are not as many as the layers.

    >>> list(plain_cnn("flatten-linear784x8-relu-linear8x10", "fc1-fc2").state_dict())
    ['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']
    """
    return PlainCNN(layers_of(layers), names.split("-"))
