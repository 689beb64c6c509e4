"""The mean corruption error: errors under corruptions, relative to those of a reference model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robaudit.errors import NotMeasuredError, UsageError


@dataclass(frozen=True)
class CorruptionError:
    """Corruption errors as fractions; 1 is the reference model's.

    Attributes:
        single: ``(c,)``, of each corruption.
        images: ``(n,)``, what each image contributes: mCE is the mean of these.
    """

    single: NDArray[np.float64]
    images: NDArray[np.float64]


def corruption_error(right: NDArray[np.bool_], reference: NDArray[Any]) -> CorruptionError:
    """``CE_c = sum_s E_{s,c} / sum_s E^ref_{s,c}`` of each corruption; their mean is the mCE.

    ``mCE = (1 / C) sum_c CE_c`` is also the mean over images of
    ``(1 / C) sum_c (1 / S) sum_s [image wrong at s, c] / ((1 / S) sum_s E^ref_{s,c})``, so that its
    standard error, for given reference errors, is that of a mean over images.

    Args:
        right: ``(n, C, S)``, whether each image is classified correctly under each corruption at
            each severity.
        reference: ``(C,)``, the reference model's error under each corruption as a mean over the
            same severities, a fraction.

    Raises:
        UsageError: the numbers of corruptions differ.
        NotMeasuredError: no images, or a reference error that is not positive.

    Source: Hendrycks & Dietterich, "Benchmarking neural network robustness to common corruptions
    and perturbations", ICLR 2019, sec. 4.

    >>> found = corruption_error(np.array([[[True, False]], [[False, False]]]), np.array([0.5]))
    >>> found.single, found.images
    (array([1.5]), array([1., 2.]))
    """
    whole = np.asarray(reference, dtype=np.float64)
    if right.ndim != 3 or whole.shape != right.shape[1:2]:
        raise UsageError(
            f"{whole.shape} reference errors for outcomes of shape {right.shape}",
            "Give one for each corruption.",
        )
    if not right.size or not (whole > 0).all():
        raise NotMeasuredError("no corruption error: no images, or a reference error that is 0")
    wrong = 1.0 - right.mean(axis=2, dtype=np.float64)
    relative = wrong / whole
    return CorruptionError(relative.mean(axis=0), relative.mean(axis=1))
