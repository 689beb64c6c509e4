"""Ascent by Adam with a decaying rate, within the ranges of slopes and multipliers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Adam's first rates, of slopes in [0, 1] and of multipliers, and their decay a step.
_SLOPE_RATE, _MULTIPLIER_RATE, _DECAY = 0.25, 0.1, 0.9
_MEAN, _SQUARE = 0.9, 0.999


@dataclass
class Adam:
    """Ascent by Adam; the last ``positive`` values are at least 0, the others in [0, 1]."""

    values: list[Tensor]
    mean: list[Tensor]
    square: list[Tensor]
    positive: int

    @classmethod
    def of(cls, values: list[Tensor], positive: int) -> Adam:
        zeros = [torch.zeros_like(part) for part in values]
        return cls(values, zeros, [part.clone() for part in zeros], positive)

    def rows(self, rows: Tensor) -> Adam:
        return Adam(
            [part[rows] for part in self.values],
            [part[rows] for part in self.mean],
            [part[rows] for part in self.square],
            self.positive,
        )

    def climb(self, gradient: tuple[Tensor, ...], step: int) -> None:
        slopes = len(self.values) - self.positive
        decay = _DECAY**step / (1 - _MEAN ** (step + 1))
        for i, slope in enumerate(gradient):
            self.mean[i].lerp_(slope, 1 - _MEAN)
            self.square[i].mul_(_SQUARE).addcmul_(slope, slope, value=1 - _SQUARE)
            scale = (self.square[i] / (1 - _SQUARE ** (step + 1))).sqrt_().add_(1e-10)
            rate = _SLOPE_RATE if i < slopes else _MULTIPLIER_RATE
            self.values[i].addcdiv_(self.mean[i], scale, value=rate * decay)
            self.values[i].clamp_(0, 1 if i < slopes else None)
