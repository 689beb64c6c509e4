"""A few adversarial examples as images, in a file beside the report.

They are made after an audit, while the network is loaded; a page shows them without torch.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from robaudit.errors import DataError
from robaudit.outcomes import UNREADABLE, read_arrays
from robaudit.report.pictures.drawing import short
from robaudit.report.text import plain

if TYPE_CHECKING:
    from torch import Tensor, nn

    from robaudit.audit.adversarial_file import Adversarial
    from robaudit.types import Examples

Pixels: TypeAlias = NDArray[np.uint8]

MOST = 8
_MOST_SIDE = 256
# Bytes of all images together: noise does not compress, and a page stays under 3 MB.
_MOST_BYTES = 1_500_000
# So many times the examples to show are looked at for those that were right and are not.
_LOOKED_AT = 8
_LONGEST_NAME = 40


@dataclass(frozen=True)
class Gallery:
    """Up to eight examples, each as three images, with the classes that the network predicts.

    Attributes:
        clean, perturbation, adversarial: ``(n, h, w)`` grey or ``(n, h, w, 3)`` uint8; the
            perturbation is ``factor`` times as large, around middle grey.
        index, label: ``(n,)`` places in the data set, and true classes.
        clean_class, adversarial_class: ``(n,)`` predicted classes.
        clean_confidence, adversarial_confidence: ``(n,)`` their softmax probabilities.
        factor: how much the perturbation is amplified.
        stride: one pixel in so many of a row or column is kept.
        names: the names of the true class, of ``clean_class`` and of ``adversarial_class``, for
            each example; empty where the data has none.
    """

    clean: Pixels
    perturbation: Pixels
    adversarial: Pixels
    index: NDArray[np.int64]
    label: NDArray[np.int64]
    clean_class: NDArray[np.int64]
    clean_confidence: NDArray[np.float64]
    adversarial_class: NDArray[np.int64]
    adversarial_confidence: NDArray[np.float64]
    factor: float
    stride: int = 1
    names: tuple[tuple[str, str, str], ...] = ()

    def called(self, at: int) -> tuple[str, str, str]:
        """The true class of an example, and those predicted before and after the attack."""
        if self.names:
            return self.names[at]
        labels = self.label[at], self.clean_class[at], self.adversarial_class[at]
        return str(labels[0]), str(labels[1]), str(labels[2])

    def fate(self, at: int) -> str:
        """What became of an example: ``already wrong``, ``broken`` or ``resists``."""
        if self.clean_class[at] != self.label[at]:
            return "already wrong"
        return "broken" if self.adversarial_class[at] != self.label[at] else "resists"

    def __len__(self) -> int:
        return len(self.clean)


_IMAGES = ("clean", "perturbation", "adversarial")
_CLASSES = ("index", "label", "clean_class", "adversarial_class")
_CONFIDENCES = ("clean_confidence", "adversarial_confidence")


def make_gallery(model: nn.Module, examples: Examples, found: Adversarial) -> Gallery:
    """Choose examples, and classify them before and after the attack.

    Args:
        model: from images in [0, 1] to logits.
        examples: the clean examples from which ``found`` was made, in the same order.
    """
    from robaudit.engine import Runner, device_of, frozen

    stride = math.ceil(max(examples.x.shape[2:]) / _MOST_SIDE)
    size = 3 * math.prod(examples.x[0, :, ::stride, ::stride].shape)
    most = min(MOST, max(1, _MOST_BYTES // size))
    runner = Runner(model, device_of(model), "auto")

    def predicted(x: Tensor) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        with frozen(model):
            confidence, label = runner.logits(x).cpu().double().softmax(1).max(1)
        return label.numpy(), confidence.numpy()

    def pixels(x: Tensor) -> Pixels:
        kept = x[:, :, ::stride, ::stride].numpy()
        kept = np.moveaxis(kept, 1, -1) if kept.shape[1] == 3 else kept[:, 0]
        return np.asarray(np.rint(255 * kept.clip(0, 1)), np.uint8)

    labels, resists = found.y.numpy(), ~found.broken.numpy()
    looked_at = np.array(chosen(labels, resists, _LOOKED_AT * most))
    wrong = predicted(examples.x[looked_at])[0] != labels[looked_at]
    # First those that flip, then those that resist, then those that were wrong before.
    kinds = np.where(wrong, 2, resists[looked_at])
    rows = looked_at[chosen(labels[looked_at], kinds, most)]
    x, adversarial = examples.x[rows], found.x[rows]
    factor = amplification(float((adversarial - x).abs().max()))
    clean_class, clean_confidence = predicted(x)
    adversarial_class, adversarial_confidence = predicted(adversarial)
    return Gallery(
        clean=pixels(x),
        perturbation=pixels(0.5 + factor * (adversarial - x)),
        adversarial=pixels(adversarial),
        index=found.index[rows].numpy(),
        label=labels[rows],
        clean_class=clean_class,
        clean_confidence=clean_confidence,
        adversarial_class=adversarial_class,
        adversarial_confidence=adversarial_confidence,
        factor=factor,
        stride=stride,
        names=_names(examples.class_names, labels[rows], clean_class, adversarial_class),
    )


def _names(names: Sequence[str], *labels: NDArray[np.int64]) -> tuple[tuple[str, str, str], ...]:
    """The names of the classes, a row for each example; empty where some class has none."""
    if not names or any(label.max() >= len(names) for label in labels):
        return ()
    rows = zip(
        *([short(names[at], _LONGEST_NAME) for at in label] for label in labels), strict=True
    )
    return tuple((true, before, after) for true, before, after in rows)


def chosen(labels: NDArray[np.int64], kinds: NDArray[Any], most: int) -> list[int]:
    """The rows to show: those of a lower kind first, and each class before a second of the same.

    >>> chosen(np.array([3, 3, 5, 7]), np.array([0, 0, 0, 1]), 3)
    [0, 2, 1]
    """
    seen: Counter[tuple[int, int]] = Counter()
    order = []
    for row, (kind, label) in enumerate(zip(kinds, labels, strict=True)):
        key = (int(kind), int(label))
        order.append((key[0], seen[key], row))
        seen[key] += 1
    return [row for *_, row in sorted(order)[:most]]


def amplification(largest: float) -> float:
    """The largest of ..., 1, 2, 5, 10, 20, ... that keeps grey plus the perturbation in [0, 1].

    >>> amplification(8 / 255), amplification(0.3)
    (10.0, 1.0)
    """
    if largest <= 0:
        return 1.0
    room = 0.5 / largest
    power = 10.0 ** math.floor(math.log10(room))
    return max(step * power for step in (1, 2, 5) if step * power <= room * (1 + 1e-9))


def write_gallery(gallery: Gallery, path: Path) -> None:
    """Write an ``.npz`` with an array for each field."""
    arrays = {field.name: np.asarray(getattr(gallery, field.name)) for field in fields(Gallery)}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read_gallery(path: Path) -> Gallery:
    """Read what :func:`write_gallery` wrote.

    Raises:
        DataError: another kind of file, or arrays that do not belong together.
    """
    try:
        file = read_arrays(path)
        names = file.get("names", np.zeros(0))  # a gallery of robaudit 0.1 has none
        arrays = {field.name: file[field.name] for field in fields(Gallery)[:-1]}
    except UNREADABLE as error:
        raise DataError(f"{plain(path)} is no gallery: {plain(error)}") from None
    shape = arrays["clean"].shape
    factor, stride = arrays.pop("factor"), arrays.pop("stride")
    fits = (
        len(shape) in (3, 4)
        and shape[3:] in ((), (3,))
        and 0 < shape[0] <= MOST
        and min(shape) > 0
        and max(shape[1:3]) <= _MOST_SIDE
        and all(arrays[name].shape == shape for name in _IMAGES)
        and all(arrays[name].dtype == np.uint8 for name in _IMAGES)
        and all(arrays[name].shape == shape[:1] for name in (*_CLASSES, *_CONFIDENCES))
        and all(arrays[name].dtype.kind == "i" for name in _CLASSES)
        and all(arrays[name].dtype.kind == "f" for name in _CONFIDENCES)
        and factor.shape == stride.shape == ()
        and factor.dtype.kind == "f"
        and stride.dtype.kind == "i"
        and (names.size == 0 or (names.shape == (shape[0], 3) and names.dtype.kind == "U"))
    )
    if not fits:
        raise DataError(f"{plain(path)} is no gallery: its arrays do not fit together")
    named = tuple((str(a), str(b), str(c)) for a, b, c in names) if names.size else ()
    return Gallery(**arrays, factor=float(factor), stride=int(stride), names=named)
