"""What measures of inputs and outputs share: they are made of clean images and of PGD examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.audit.context import Context
    from robaudit.audit.probes.pgd import Pgd

ADVERSARIAL = "adversarial_"
"""Begins the second part of the name of a measure at adversarial examples."""


def clean_and_adversarial(context: Context, pgd: Pgd) -> Iterator[tuple[str, Tensor]]:
    """What names begin with, and the images: the audited ones, then the PGD examples of them."""
    yield "", context.splits[context.main].x
    yield ADVERSARIAL, context.adversarial(context.main, pgd).x


def place(prefix: str, context: Context, n: int) -> str:
    """The images in words, for progress displays."""
    return f"{n} {'adversarial' if prefix else 'clean'} {context.main} examples"
