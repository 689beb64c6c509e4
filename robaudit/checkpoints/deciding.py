"""Which candidates the losses on labelled images exclude, and whether the rest agree.

Training minimised one loss: the robust loss of an adversarially trained network, the clean loss of
any other. The right candidate has nearly the lowest value of that loss, and a candidate is excluded
if another's value is lower by more than :data:`_TOLERANCE` plus the sampling error. The tolerance
is needed because the right candidate need not be the minimum: the audit's radius may differ from
that of training, and networks trained for certificates minimise yet another loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

FEW = 256
"""With fewer images standard errors are uncertain, and larger differences are required."""

_TOLERANCE, _NATS = 0.05, 0.02
_ERRORS, _ERRORS_OF_FEW = 2.5, 3.5
_ACCURACY_ERRORS = 3.0
_FAR_BEHIND = 0.05
# The lowest robust loss over the clean loss there: up to 7 in adversarially trained networks on
# colour images and MNIST, 11 to 35 on the digits, and from 54 on in networks trained on clean
# images. A radius much above that of training lowers it too, but leaves few images right. In
# between, a candidate is excluded only by both losses.
_ADVERSARIAL, _STANDARD = 10.0, 40.0
_STANDING, _STANDING_WELL = 0.4, 0.6
_POINT, _CLEAN_POINTS = 0.01, 0.02


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One candidate on labelled images: rows are checkpoints, columns images.

    Attributes:
        clean, right: cross-entropy, and whether the image is classified right, ``(f, n)``.
        robust, stands: the highest cross-entropy during the attack, and whether the image is
            classified right at every step, ``(f, m)`` of the first images; ``m`` is 0 before the
            attack.
        mute: the gradient was zero, so the attack's losses are meaningless.
        foreign: its normalisation is another data set's.
    """

    clean: Tensor
    right: Tensor
    robust: Tensor
    stands: Tensor
    mute: bool = False
    foreign: bool = False

    @property
    def accuracy(self) -> float:
        return float(self.right.double().mean())

    @property
    def robust_accuracy(self) -> float:
        return float(self.stands.double().mean())


def networks_left(best: Sequence[Outcomes]) -> list[int]:
    """Networks, each with its most accurate normalisation, that are not worse than the best.

    Accuracy alone decides here: by three standard errors of the paired difference.
    """
    best = _on_the_same(best)
    top = max(best, key=lambda one: one.accuracy)
    return [k for k, one in enumerate(best) if not _less_accurate(one, top)]


def worth_attacking(found: Sequence[Outcomes]) -> list[int]:
    """Those less accurate than the best by at most five points or three standard errors."""
    found = _on_the_same(found)
    top = max(found, key=lambda one: one.accuracy)
    far = [top.accuracy - one.accuracy > _FAR_BEHIND for one in found]
    return [k for k, one in enumerate(found) if not (far[k] and _less_accurate(one, top))]


def left(found: Sequence[Outcomes]) -> list[int]:
    """Those that no other excludes.

    A normalisation of another data set is excluded, too, if one that is not is better in both
    losses, by however little.
    """
    found = _on_the_same(found)
    witnesses = _witnesses(found)
    excluded = [any(_excludes(other, one, witnesses) for other in found) for one in found]
    kept = [k for k in range(len(found)) if not excluded[k]]
    own = [found[k] for k in kept if not found[k].foreign]
    return [k for k in kept if not (found[k].foreign and any(_dominates(o, found[k]) for o in own))]


def likeliest(found: Sequence[Outcomes]) -> int:
    """The one with the lowest loss that training minimised; other data sets' come last."""
    found = _on_the_same(found)
    witness = _witnesses(found)[0]
    return min(range(len(found)), key=lambda k: (found[k].foreign, _mean(found[k], witness)))


def lowest(found: Sequence[Outcomes]) -> int:
    """The one with the lowest robust accuracy, so that robustness is not overstated."""
    found = _on_the_same(found)
    own = [k for k, one in enumerate(found) if not one.foreign] or range(len(found))
    return min(own, key=lambda k: found[k].robust_accuracy)


def agree(found: Sequence[Outcomes], taken: int) -> bool:
    """Whether the choice does not matter.

    On every checkpoint the robust accuracies differ by at most one point from that of the taken
    one, that difference is known to a point, and clean accuracies differ by at most two.
    """
    found = _on_the_same(found)
    one = found[taken]
    for other in found:
        if other is one:
            continue
        if one.mute or other.mute:
            return False
        moved = other.stands.double() - one.stands.double()
        # Never zero, however alike they were on a few images.
        error = ((moved.mean(0) ** 2).sum() + 1).sqrt() / moved.shape[1]
        cleaner = (other.right.double() - one.right.double()).mean(1).abs().max()
        if float(moved.mean(1).abs().max()) > _POINT + 1e-9 or float(error) > _POINT:
            return False
        if float(cleaner) > _CLEAN_POINTS + 1e-9:
            return False
    return True


def _on_the_same(found: Sequence[Outcomes]) -> list[Outcomes]:
    """Outcomes on the images that all candidates were tried and attacked on."""
    n = min(one.right.shape[1] for one in found)
    m = min(one.stands.shape[1] for one in found)
    return [
        Outcomes(
            *(one.clean[:, :n], one.right[:, :n], one.robust[:, :m], one.stands[:, :m]),
            mute=one.mute,
            foreign=one.foreign,
        )
        for one in found
    ]


def _witnesses(found: Sequence[Outcomes]) -> tuple[str, ...]:
    """Which loss training minimised: ``robust``, ``clean``, or both if in doubt."""
    heard = [one for one in found if not one.mute and one.robust.numel()]
    if not heard:
        return ("clean",)
    lowest = min(heard, key=lambda one: float(one.robust.mean()))
    clean = float(lowest.clean[:, : lowest.robust.shape[1]].mean())
    ratio = float(lowest.robust.mean()) / max(clean, 1e-12)
    standing = lowest.robust_accuracy / max(lowest.accuracy, 1e-12)
    if ratio >= _STANDARD:
        return ("clean",)
    if standing >= (_STANDING if ratio <= _ADVERSARIAL else _STANDING_WELL):
        return ("robust",)
    return ("robust", "clean")


def _excludes(other: Outcomes, one: Outcomes, witnesses: Sequence[str]) -> bool:
    if one.mute or other.mute:
        witnesses = ("clean",)
    return all(
        _above(
            getattr(one, name) - getattr(other, name),
            max(_NATS, _TOLERANCE * _mean(other, name)),
            _errors(one, name),
        )
        for name in witnesses
    )


def _less_accurate(one: Outcomes, top: Outcomes) -> bool:
    return _above(top.right.double() - one.right.double(), 0.0, _ACCURACY_ERRORS)


def _dominates(other: Outcomes, one: Outcomes) -> bool:
    return all(
        _above(getattr(one, name) - getattr(other, name), 0.0, 2.0) for name in ("robust", "clean")
    )


def _errors(one: Outcomes, name: str) -> float:
    return _ERRORS if getattr(one, name).shape[1] >= FEW else _ERRORS_OF_FEW


def _mean(one: Outcomes, name: str) -> float:
    return float(getattr(one, name).mean())


def _above(difference: Tensor, bar: float, errors: float) -> bool:
    """Whether the mean over images of the mean over checkpoints is above the bar beyond noise."""
    rows = difference.double().mean(0)
    if len(rows) < 2:
        return False
    return float(rows.mean()) > bar + errors * float(rows.std() / len(rows) ** 0.5)
