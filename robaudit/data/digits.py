"""The bundled data set: 1797 handwritten digits of 8x8 pixels, 1297 to train and 500 to test.

"Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0. Changed here: the images are
split by a fixed permutation, see ``sample_checkpoints/make_digits.py``.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from robaudit.data.source import Source, from_arrays

_DARKEST = 16  # a pixel counts the dark ones among 4x4 of the scan


def digits(split: str) -> Source:
    """Images ``(n, 1, 8, 8)``; the value of a pixel is its count of dark pixels over 16."""
    with as_file(files("robaudit.data") / "digits.npz") as path, np.load(path) as arrays:
        images = arrays[f"x_{split}"].astype(np.float32) / np.float32(_DARKEST)
        return from_arrays(images, arrays[f"y_{split}"], 10, "digits")
