"""The vision transformer with the keys of Hugging Face's ``ViTForImageClassification``.

Source: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021 (pre-norm encoder).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_EPSILON = 1e-12


def _dense(inputs: int, outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({"dense": nn.Linear(inputs, outputs)})


class _Layer(nn.Module):
    """Self-attention and a two-layer network, each behind a norm and around a residual."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        projections = {key: nn.Linear(width, width) for key in ("query", "key", "value")}
        self.attention = nn.ModuleDict(
            {"attention": nn.ModuleDict(projections), "output": _dense(width, width)}
        )
        self.intermediate = _dense(width, hidden)
        self.act = nn.GELU()
        self.output = _dense(hidden, width)
        self.layernorm_before = nn.LayerNorm(width, _EPSILON)
        self.layernorm_after = nn.LayerNorm(width, _EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention.get_submodule("output.dense")(self._mix(self.layernorm_before(x)))
        inner = self.act(self.intermediate["dense"](self.layernorm_after(x)))
        out: Tensor = x + self.output["dense"](inner)
        return out

    def _mix(self, x: Tensor) -> Tensor:
        # In plain operations: the fused kernels have no second derivative.
        query, key, value = (
            self.attention.get_submodule(f"attention.{part}")(x)
            .unflatten(-1, (self.heads, -1))
            .transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        mixed: Tensor = torch.softmax(scores, dim=-1) @ value
        return mixed.transpose(1, 2).flatten(2)


class _Embeddings(nn.Module):
    """Patches behind a class token, with their positions."""

    def __init__(self, channels: int, width: int, patch: int, positions: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(0.02 * torch.randn(1, positions, width))
        self.patch_embeddings = nn.ModuleDict(
            {"projection": nn.Conv2d(channels, width, patch, patch)}
        )

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embeddings["projection"](x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], 1)
        return tokens + self.position_embeddings


class HFViT(nn.Module):
    """Embeddings, encoder layers, norm, and a linear head on the class token."""

    def __init__(
        self, sizes: tuple[int, int, int, int], depth: int, heads: int, hidden: int, positions: int
    ) -> None:
        super().__init__()
        classes, channels, width, patch = sizes
        layers = nn.Sequential(*(_Layer(width, heads, hidden) for _ in range(depth)))
        self.vit = nn.ModuleDict(
            {
                "embeddings": _Embeddings(channels, width, patch, positions),
                "encoder": nn.ModuleDict({"layer": layers}),
                "layernorm": nn.LayerNorm(width, _EPSILON),
            }
        )
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        tokens = self.vit.get_submodule("encoder.layer")(self.vit["embeddings"](x))
        logits: Tensor = self.classifier(self.vit["layernorm"](tokens)[:, 0])
        return logits


def hf_vit(
    width: int = 768,
    depth: int = 12,
    *,
    heads: int = 12,
    hidden: int = 3072,
    patch: int = 16,
    positions: int = 197,
    classes: int = 10,
    channels: int = 3,
) -> nn.Module:
    """A vision transformer.

    Args:
        hidden: width within the layers' two-layer networks.
        positions: how many there are, the class token's included.
    """
    return HFViT((classes, channels, width, patch), depth, heads, hidden, positions)
