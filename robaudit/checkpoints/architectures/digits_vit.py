"""A tiny vision transformer for 8x8 images: the smooth sample (GELU, softmax attention).

Its loss is curved in every layer's weights, so the Hessian is not the Gauss-Newton matrix; the
attention is written in plain operations because the fused kernels have no second derivative.
Source: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021 (pre-norm encoder), with
the mean over tokens in place of a class token.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_HEADS = 4
_MLP_RATIO = 2


class _Attention(nn.Module):
    """Multi-head self-attention, ``softmax(Q K^T / sqrt(d)) V``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % _HEADS:
            raise ValueError(f"width {width} is not a multiple of the {_HEADS} heads")
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        parts = self.qkv(x).reshape(n, tokens, 3, _HEADS, width // _HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-2, -1) * (width // _HEADS) ** -0.5
        mixed = torch.softmax(scores, dim=-1) @ value
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, tokens, width))
        return out


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = _Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, _MLP_RATIO * width)
        self.gelu = nn.GELU()
        self.fc2 = nn.Linear(_MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.fc2(self.gelu(self.fc1(self.norm2(x))))
        return out


class DigitsViT(nn.Module):
    """Patch embedding, learned positions, encoder blocks, mean over tokens, linear head."""

    def __init__(
        self, classes: int, channels: int, width: int, depth: int, patch: int, tokens: int
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)`` in ``[0, 1]``."""
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(dim=1))
        return logits


def digits_vit(
    classes: int = 10,
    channels: int = 1,
    width: int = 40,
    depth: int = 2,
    patch: int = 2,
    tokens: int = 16,
) -> nn.Module:
    """A vision transformer with four heads, of about ``8 * depth * width**2`` parameters.

    Takes images ``(n, channels, h, w)`` in ``[0, 1]`` that make ``tokens = (h w) / patch**2``
    patches, and needs no input normalisation; gives logits ``(n, classes)``.

    Raises:
        ValueError: ``width`` is no multiple of four.

    >>> sum(p.numel() for p in digits_vit().parameters())
    27810
    """
    return DigitsViT(classes, channels, width, depth, patch, tokens)
