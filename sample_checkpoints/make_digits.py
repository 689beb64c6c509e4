"""Write robaudit/data/digits.npz, the bundled data set, from scikit-learn's copy of it.

Run once, by hand, with scikit-learn installed: ``python sample_checkpoints/make_digits.py``.
The file holds the split, so it never depends on a random generator again. Running this again gives
the same bytes.

Data: "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, 1998, CC BY 4.0 (https://doi.org/10.24432/C50P49). scikit-learn carries its test part:
1797 images of 8x8 pixels, each the count, 0 to 16, of dark pixels in a 4x4 field.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

TEST = 500
SEED = 0
TARGET = Path(__file__).parents[1] / "robaudit" / "data" / "digits.npz"


def main() -> None:
    """Split by a seeded permutation: the first 500 are the test set, the other 1297 the rest."""
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    # The source is ordered by writer; a permutation gives both parts the same writers.
    order = np.random.default_rng(SEED).permutation(len(labels))
    test, train = order[:TEST], order[TEST:]
    np.savez_compressed(
        TARGET,
        x_train=images[train],
        y_train=labels[train],
        x_test=images[test],
        y_test=labels[test],
    )
    print(f"{TARGET}: {TARGET.stat().st_size} bytes, {len(train)} train, {len(test)} test")


if __name__ == "__main__":
    main()
