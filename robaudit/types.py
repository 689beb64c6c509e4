"""What everything else speaks: threat models, examples, progress. Imports no torch at run time."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args

from robaudit.brief import brief
from robaudit.errors import UsageError

if TYPE_CHECKING:
    from typing import TypeAlias

    from jaxtyping import Float, Int
    from torch import Tensor

    Images: TypeAlias = Float[Tensor, "n c h w"]
    Labels: TypeAlias = Int[Tensor, " n"]
    Logits: TypeAlias = Float[Tensor, "n k"]

Norm = Literal["linf", "l2", "l1"]


def parse_norm(text: str) -> Norm:
    """Read a norm, in capitals or not.

    Raises:
        UsageError: there is none of that name.

    >>> parse_norm("Linf")
    'linf'
    """
    for norm in get_args(Norm):
        if text.lower().replace("_", "") == norm:
            return cast("Norm", norm)
    known = get_args(Norm)
    near = difflib.get_close_matches(text.lower(), known, 1)
    raise UsageError(
        f"unknown norm {text!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        f"Known norms: {', '.join(known)}.",
    )


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


def check_radius(eps: float) -> float:
    """``eps`` itself.

    Raises:
        UsageError: it is not a positive, finite number.
    """
    if not math.isfinite(eps):
        raise UsageError(f"eps is not a finite number: {eps}", "Write it as 0.3 or 8/255.")
    if eps <= 0:
        raise UsageError(
            f"eps must be positive, not {eps:g}",
            "The accuracy at eps 0 is the clean accuracy, which every audit reports.",
        )
    return eps


def radius(eps: float) -> str:
    """A radius as it is usually written: in 255ths where it is a whole number of them.

    >>> radius(8 / 255), radius(0.5)
    ('8/255', '0.5')
    """
    steps = eps * 255
    if eps < 1 and abs(steps - round(steps)) < 1e-6 and round(steps) > 0:
        return f"{round(steps)}/255"
    return f"{eps:.4g}"


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

    Args:
        norm: ``linf``, ``l2`` or ``l1``.
        eps: the radius, in units of [0, 1].
        forced: allow an ``eps`` of 1 or more in linf, whose ball holds every image.

    Raises:
        UsageError: another norm, or an ``eps`` that cannot be meant.

    >>> ThreatModel("linf", 8 / 255)
    ThreatModel(norm='linf', eps=0.03137254901960784)
    """

    norm: Norm
    eps: float
    forced: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", parse_norm(self.norm))
        check_radius(self.eps)
        if self.norm == "linf" and self.eps >= 1 and not self.forced:
            raise UsageError(
                f"within eps {self.eps:g} in linf every image may become any other",
                f"Radii are in units of [0, 1]: perhaps {self.eps:g}/255 was meant; else force it "
                "(--force-eps).",
            )


@dataclass(frozen=True)
class Examples:
    """Labelled images: ``x`` float32 in ``[0, 1]``, ``(n, c, h, w)``; ``y`` int64, ``(n,)``.

    ``index`` is each example's place in its data set (it seeds the example's random draws, so a
    subset gives the same numbers as the whole); ``classes`` is the number of classes of the data
    set, or ``None`` when the data does not say; ``sha256`` is the hash of images and labels;
    ``population`` is how many examples the whole split has, where that is known; ``groups``,
    ``(n,)`` int64, says which examples show one image, where some do: those are not independent,
    and error bars count that.
    """

    x: Images
    y: Labels
    index: Labels
    name: str
    split: str
    sha256: str
    classes: int | None = None
    population: int | None = None
    groups: Labels | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and tuple(self.groups.shape) != (len(self),):
            raise UsageError(
                f"{self.name}: groups of shape {tuple(self.groups.shape)} for {len(self)} examples",
                "Give one number for each example, the same for those of one image.",
            )

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def taken(self, rows: slice | Labels) -> Examples:
        """Some of them; name and hash stay those of the whole."""
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, x=self.x[rows], y=self.y[rows], index=self.index[rows], groups=groups)

    __repr__ = brief


class Progress(Protocol):
    """Called by long computations with the work done and the work in all, in the same unit."""

    def __call__(self, done: int, total: int) -> None: ...


def share_of(progress: Progress | None, before: float, own: float, whole: int) -> Progress | None:
    """A callback for a part of a computation that tells of the whole, ``before`` being done."""
    if progress is None:
        return None
    return lambda done, total: progress(round(before + own * done / max(1, total)), whole)


class Cache(Protocol):
    """Gives a finished piece of work by its name, or has it computed and keeps it."""

    def __call__(
        self, name: str, compute: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]: ...


def no_cache(name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The :class:`Cache` that keeps nothing."""
    return compute()
