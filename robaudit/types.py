"""Types that all rooms share: threat models, examples, progress. Imports no torch at run time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, Protocol, cast, get_args

from robaudit.brief import brief
from robaudit.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from typing import TypeAlias

    from jaxtyping import Float, Int
    from torch import Tensor

    Images: TypeAlias = Float[Tensor, "n c h w"]
    Labels: TypeAlias = Int[Tensor, " n"]
    Logits: TypeAlias = Float[Tensor, "n k"]

Norm = Literal["linf", "l2", "l1"]
ORDERS: dict[Norm, float] = {"linf": math.inf, "l2": 2.0, "l1": 1.0}
"""The ``p`` of each norm; the box ``[0, 1]^d`` is ``d^(1/p)`` wide in it."""
DUALS: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
"""The norm that a gradient is measured in, of each norm of a perturbation."""

Operator = Literal["hessian", "gauss-newton"]
Estimator = Literal["auto", "exact", "gauss-newton", "hessian"]
TrainingLoss = Literal["at", "trades", "alp", "mart"]
AutoAttackVersion = Literal["standard", "plus", "rand"]


def parse_norm(text: str) -> Norm:
    """Parse the name of a norm; case and underscores do not matter.

    Raises:
        UsageError: there is no norm of that name.

    >>> parse_norm("Linf")
    'linf'
    """
    for norm in get_args(Norm):
        if text.lower().replace("_", "") == norm:
            return cast("Norm", norm)
    known = get_args(Norm)
    raise UsageError(
        f"unknown norm {text!r}{did_you_mean(text, known)}", f"Known norms: {', '.join(known)}."
    )


def parse_eps(text: str | float) -> float:
    """Parse a radius: a number, or a fraction such as ``"8/255"``.

    Raises:
        UsageError: the text is not a number.

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
    """Format a radius: as a fraction of 255 where it is a multiple of 1/255.

    >>> radius(8 / 255), radius(0.5)
    ('8/255', '0.5')
    """
    steps = eps * 255
    if eps < 1 and abs(steps - round(steps)) < 1e-6 and round(steps) > 0:
        return f"{round(steps)}/255"
    return f"{eps:.4g}"


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Parse an amount of memory: bytes, or a number with K, M, G or T (powers of 1024).

    Raises:
        UsageError: the text is not an amount of memory, or zero.

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

    Attributes:
        norm: ``linf``, ``l2`` or ``l1``.
        eps: the radius, in units of [0, 1].
        forced: allow an ``eps`` of 1 or more in linf, whose ball contains every image.

    Raises:
        UsageError: an unknown norm, or an ``eps`` that is not positive and finite, or is 1 or more
            in linf and not forced.

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


def parse_threats(text: str) -> tuple[ThreatModel, ...]:
    """Parse a list of norms with their radii, no norm twice.

    Raises:
        UsageError: a norm, a radius or the list is wrong, or it names fewer than two norms.

    >>> parse_threats("linf:8/255, l2:0.5")
    (ThreatModel(norm='linf', eps=0.03137254901960784), ThreatModel(norm='l2', eps=0.5))
    """
    example = "Write it as linf:8/255,l2:0.5,l1:12."
    found: dict[Norm, ThreatModel] = {}
    for part in text.split(","):
        norm, colon, eps = part.strip().partition(":")
        if not colon:
            raise UsageError(f"{part.strip()!r} is not a norm and its radius", example)
        threat = ThreatModel(parse_norm(norm.strip()), parse_eps(eps.strip()))
        if threat.norm in found:
            raise UsageError(f"{threat.norm} is named twice", example)
        found[threat.norm] = threat
    if len(found) < 2:
        raise UsageError("a union is of two norms or more", example)
    return tuple(found.values())


@dataclass(frozen=True)
class Examples:
    """Labelled images of one split of a data set.

    Attributes:
        x: images ``(n, c, h, w)``, float32 in ``[0, 1]``.
        y: labels ``(n,)``, int64.
        index: ``(n,)`` int64, each example's position in its split. It seeds the example's random
            draws, so that a subset gives the same numbers as the whole.
        name: of the data set, as for :func:`robaudit.load_examples`.
        split: ``test`` or ``train``.
        sha256: hash of images and labels.
        classes: number of classes of the data set; ``None`` where the data does not say.
        population: number of examples in the whole split, where that is known.
        groups: ``(n,)`` int64, equal for examples of one image; ``None`` where every example is
            independent. Standard errors take groups into account.
        class_names: of the classes in the order of their labels; empty where the data has none.

    Raises:
        UsageError: ``groups`` of another shape.
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
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.groups is not None and tuple(self.groups.shape) != (len(self),):
            raise UsageError(
                f"{self.name}: groups of shape {tuple(self.groups.shape)} for {len(self)} examples",
                "Give one number per example, equal for the examples of one image.",
            )

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def taken(self, rows: slice | Labels) -> Examples:
        """A subset; name and hash remain those of the whole.

        Args:
            rows: a slice, or positions or a mask ``(n,)``.
        """
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, x=self.x[rows], y=self.y[rows], index=self.index[rows], groups=groups)

    __repr__ = brief


class Progress(Protocol):
    """Callback of long computations: the work done and the total work, in the same unit."""

    def __call__(self, done: int, total: int) -> None: ...


def share_of(progress: Progress | None, before: float, own: float, whole: int) -> Progress | None:
    """A callback for a part of a computation that reports progress of the whole.

    Args:
        progress: the callback of the whole.
        before: work of the whole that is done before the part.
        own: work of the part, in the unit of the whole.
        whole: total work.
    """
    if progress is None:
        return None
    return lambda done, total: progress(round(before + own * done / max(1, total)), whole)


class Cache(Protocol):
    """Returns the tensors stored under a name, or computes and stores them."""

    def __call__(
        self, name: str, compute: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]: ...


def no_cache(name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The :class:`Cache` that stores nothing."""
    return compute()
