"""Randomised networks, audited as the majority vote of several draws.

A single pass of a randomised network is not a classifier: an attack of many steps would succeed at
the first unlucky draw. The audit therefore uses the majority vote of ``K`` draws, whose noise is
determined by the seed and is the same in every pass, so that an image that does not change keeps
its verdict. Attacks do not use those draws: their gradients are averaged over ``K`` others, new
ones at every point (expectation over transformation).
Source: Athalye, Carlini & Wagner, "Obfuscated gradients give a false sense of security", ICML 2018.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robaudit.engine.device import device_of
from robaudit.engine.freezing import frozen
from robaudit.engine.logits import logits_of
from robaudit.engine.raised import recurs
from robaudit.engine.seeding import seed_for
from robaudit.engine.surrogate import SurrogateGradient
from robaudit.errors import UsageError

SAMPLES = 10
SINGLE_DRAWS = (
    "the network draws at random: its curvature and flatness would be those of single draws"
)
"""Why measures that need a deterministic function of the weights are skipped."""
_PASSES = 3
_IMAGES = 64
# Difference between passes on a GPU, relative to the largest logit, that counts as rounding.
_ROUNDING = 1e-4


class Voted(nn.Module):
    """The voted classifier of a network, with averaged gradients.

    Its logits are ``log((1/K) sum_k softmax(z_k))``, with the class of most votes raised to the
    largest where it is not; a tie is decided by the largest mean. The gradient is that of the same
    average over ``K`` other draws, seeded by the images. The random states of the process are not
    changed.
    """

    guards_calls = True

    def __init__(self, network: nn.Module, samples: int = SAMPLES, seed: int = 0) -> None:
        super().__init__()
        if samples < 1:
            raise UsageError(f"samples must be at least 1, not {samples}")
        self.network = network
        self.samples = samples
        self.seed = seed
        self.origin = getattr(network, "origin", None)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            draws = self._draws(x, "vote")
            values = _elected(draws)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return values
        bytes_of = x.detach().contiguous().cpu().numpy().tobytes()
        point = hashlib.blake2b(bytes_of, digest_size=8).hexdigest()
        average = _mean(self._draws(x, f"search {point}"))
        found: Tensor = SurrogateGradient.apply(average, values)
        return found

    def _draws(self, x: Tensor, stream: str) -> Tensor:
        """Logarithms of the probabilities, ``(K, n, k)``."""
        found = []
        for sample in range(self.samples):
            with seeded(seed_for(self.seed, stream, sample), x.device):
                found.append(logits_of(self.network, x).log_softmax(1))
        return torch.stack(found)


def voted(model: nn.Module, x: Tensor, samples: int | None = None, seed: int = 0) -> nn.Module:
    """The model itself, or :class:`Voted` where it is randomised or ``samples`` is not 1.

    Args:
        model: images to logits.
        x: images on which repeated passes are compared.
        samples: draws of a vote and of a gradient; ``None`` for ten where the model is randomised.
        seed: of the draws.
    """
    if samples is None:
        samples = SAMPLES if draws_at_random(model, x) else 1
    return Voted(model, samples, seed) if samples != 1 else model


def draws_at_random(model: nn.Module, x: Tensor) -> bool:
    """Whether passes of the same images differ; on a GPU by more than rounding."""
    if isinstance(model, Voted):
        return False
    images = x[:_IMAGES].to(device_of(model))
    try:
        with frozen(model), torch.no_grad(), seeded(0, images.device):
            first = model(images)
            return not all(same_logits(first, model(images)) for _ in range(_PASSES - 1))
    except BaseException as error:
        if not recurs(error):
            raise
        return False


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch, NumPy and Python inside the block; their states are restored on exit."""
    numpy, python = np.random.get_state(), random.getstate()  # noqa: NPY002 - the network's own
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            # Of the devices without CUDA alone: torch notes where it was called until CUDA starts.
            (torch if device.type == "cuda" else torch.default_generator).manual_seed(seed)
            np.random.seed(seed % (1 << 32))  # noqa: NPY002
            random.seed(seed)
            yield
    finally:
        np.random.set_state(numpy)  # noqa: NPY002
        random.setstate(python)


def same_logits(one: Any, other: Any) -> bool:
    """Whether two passes gave the same; on a GPU up to rounding, and whatever is no tensor."""
    if not isinstance(one, Tensor):
        return True
    one, other = one.nan_to_num(), other.nan_to_num()
    if one.device.type == "cpu" or one.shape != other.shape:
        return torch.equal(one, other)
    return bool((one - other).abs().amax() <= _ROUNDING * one.abs().amax())


def _mean(draws: Tensor) -> Tensor:
    return draws.logsumexp(0) - math.log(len(draws))


def _elected(draws: Tensor) -> Tensor:
    """The mean with the class of most votes as its largest."""
    values = _mean(draws)
    votes = torch.zeros_like(values)
    chosen = draws.argmax(2)
    votes.scatter_add_(1, chosen.T, torch.ones_like(chosen.T, dtype=votes.dtype))
    most = votes == votes.amax(1, keepdim=True)
    winner = torch.where(most, values, -torch.inf).argmax(1, keepdim=True)
    largest = values.amax(1, keepdim=True)
    above = largest + (largest.abs() * 1e-6).clamp_min(1e-6)
    lost = values.argmax(1, keepdim=True) != winner
    return torch.where(lost, values.scatter(1, winner, above), values)
