"""What everything else speaks: threat models, examples, progress. Imports no torch at run time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from robaudit.errors import UsageError

if TYPE_CHECKING:
    from typing import TypeAlias

    from jaxtyping import Float, Int
    from torch import Tensor

    Images: TypeAlias = Float[Tensor, "n c h w"]
    Labels: TypeAlias = Int[Tensor, " n"]
    Logits: TypeAlias = Float[Tensor, "n k"]

Norm = Literal["linf", "l2", "l1"]


def parse_eps(text: str | float) -> float:
    """Read a radius: a number, or a fraction such as ``"8/255"``.

    Raises:
        UsageError: the text is no number.

    >>> parse_eps("8/255") == 8 / 255
    True
    """
    try:
        if isinstance(text, str) and "/" in text:
            above, below = text.split("/")
            return float(Fraction(above.strip()) / Fraction(below.strip()))
        return float(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"eps is not a number: {text!r}", "Write it as 0.3 or 8/255.") from None


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Read an amount of memory: bytes, or a number with K, M, G or T (powers of 1024).

    Raises:
        UsageError: the text is no such amount, or zero.

    >>> parse_bytes("2GB"), parse_bytes("1.5 k")
    (2147483648, 1536)
    """
    found = _SIZE.fullmatch(text.strip())
    amount = (
        0 if found is None else float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " ")
    )
    if amount < 1:
        raise UsageError(f"not an amount of memory: {text!r}", "Write it as 500M or 2GB.")
    return int(amount)


@dataclass(frozen=True)
class ThreatModel:
    """Perturbations ``d`` with ``||d|| <= eps`` in ``norm``, and ``x + d`` in ``[0, 1]``.

    >>> ThreatModel("linf", 8 / 255)
    ThreatModel(norm='linf', eps=0.03137254901960784)
    """

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            known = ", ".join(get_args(Norm))
            raise UsageError(f"unknown norm {self.norm!r}", f"Known norms: {known}.")
        if not math.isfinite(self.eps):
            raise UsageError(f"eps is not a finite number: {self.eps}", "Write it as 0.3 or 8/255.")
        if self.eps <= 0:
            raise UsageError(
                f"eps must be positive, not {self.eps:g}",
                "The accuracy at eps 0 is the clean accuracy, which every audit reports.",
            )


@dataclass(frozen=True)
class Examples:
    """Labelled images: ``x`` float32 in ``[0, 1]``, ``(n, c, h, w)``; ``y`` int64, ``(n,)``.

    ``index`` is each example's place in its data set (it seeds the example's random draws, so a
    subset gives the same numbers as the whole); ``classes`` is the number of classes of the data
    set, or ``None`` when the data does not say; ``sha256`` is the hash of images and labels.
    """

    x: Images
    y: Labels
    index: Labels
    name: str
    split: str
    sha256: str
    classes: int | None = None

    def __len__(self) -> int:
        return int(self.x.shape[0])


class Progress(Protocol):
    """Called by long computations with the work done and the work in all, in the same unit."""

    def __call__(self, done: int, total: int) -> None: ...


def share_of(progress: Progress | None, before: float, own: float, whole: int) -> Progress | None:
    """A callback for a part of a computation that tells of the whole, ``before`` being done."""
    if progress is None:
        return None
    return lambda done, total: progress(round(before + own * done / max(1, total)), whole)


class Remember(Protocol):
    """Gives a finished piece of work by its name, or has it computed and keeps it."""

    def __call__(
        self, name: str, compute: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]: ...


def forget(name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The :class:`Remember` that keeps nothing."""
    return compute()
