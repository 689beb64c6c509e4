"""Vision transformers of any size with timm's keys, as trained on small images.

Source: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021 (pre-norm encoder).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robaudit.checkpoints.architectures.layers import one_of

_EPSILON = 1e-6


class _Attention(nn.Module):
    """Multi-head self-attention, ``softmax(Q K^T / sqrt(d)) V``."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # In plain operations: the fused kernels have no second derivative.
        query, key, value = parts.unbind(0)
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        mixed = torch.softmax(scores, dim=-1) @ value
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, _EPSILON)
        self.attn = _Attention(width, heads, bias)
        self.norm2 = nn.LayerNorm(width, _EPSILON)
        self.mlp = _Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _PatchEmbed(nn.Module):
    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return out


class ViT(nn.Module):
    """Patch embedding, class token, positions, encoder blocks, norm, linear head."""

    def __init__(
        self,
        sizes: tuple[int, int, int, int],
        depth: int,
        heads: int,
        hidden: int,
        positions: int,
        pool: str,
        bias: bool,
    ) -> None:
        super().__init__()
        classes, channels, width, patch = sizes
        self.mean_pooled = pool != "token"
        self.patch_embed = _PatchEmbed(channels, width, patch)
        if pool != "patches":
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.has_token = pool != "patches"
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, positions, width))
        self.blocks = nn.Sequential(*(_Block(width, heads, hidden, bias) for _ in range(depth)))
        norm = nn.LayerNorm(width, _EPSILON)
        self.norm = nn.Identity() if self.mean_pooled else norm
        self.fc_norm = norm if self.mean_pooled else nn.Identity()
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        tokens = self.patch_embed(x)
        if self.has_token:
            tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1)
        tokens = self.norm(self.blocks(tokens + self.pos_embed))
        first = 1 if self.has_token else 0
        pooled = tokens[:, first:].mean(1) if self.mean_pooled else tokens[:, 0]
        logits: Tensor = self.head(self.fc_norm(pooled))
        return logits


def vit(
    width: int = 384,
    depth: int = 12,
    *,
    heads: int = 6,
    hidden: int = 1536,
    patch: int = 4,
    positions: int = 65,
    pool: str = "token",
    bias: str = "yes",
    classes: int = 10,
    channels: int = 3,
) -> nn.Module:
    """A vision transformer.

    Args:
        hidden: width within the blocks' two-layer networks.
        positions: how many there are, the class token's included.
        pool: what enters the head: ``token`` for the class token, ``mean`` for the mean of the
            patches beside one, ``patches`` for that mean where there is none.
        bias: ``yes`` or ``no``, of queries, keys and values.
    """
    one_of(("token", "mean", "patches"), pool=pool)
    one_of(("yes", "no"), bias=bias)
    sizes = (classes, channels, width, patch)
    return ViT(sizes, depth, heads, hidden, positions, pool, bias == "yes")
