"""Tiny folders of corrupted digits, in the forms of CIFAR-10-C and of ImageNet-C."""

import numpy as np
from PIL import Image

from robaudit.data import load_examples
from robaudit.datasets import CORRUPTIONS, SEVERITIES


def corrupted_digits(name, severity, n=None):
    """``(n, 8, 8, 1)`` uint8: noise that depends on the corruption's name and grows."""
    x = load_examples("digits", n=n).x.numpy().transpose(0, 2, 3, 1)
    noise = np.random.default_rng([severity, *name.encode()]).normal(size=x.shape)
    spread = (0.02 + 0.01 * (len(name) % 5)) * severity
    return np.clip(255 * (x + spread * noise) + 0.5, 0, 255).astype(np.uint8)


def write_arrays(folder, names=CORRUPTIONS, repeated=True):
    """``NAME.npy`` and ``labels.npy`` of all 500 test digits."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        whole = np.concatenate([corrupted_digits(name, severity) for severity in SEVERITIES])
        np.save(folder / f"{name}.npy", whole)
    y = load_examples("digits").y.numpy()
    np.save(folder / "labels.npy", np.tile(y, len(SEVERITIES)) if repeated else y)
    return folder


def write_images(folder, names=CORRUPTIONS, n=20, category=None):
    """``NAME/SEVERITY/CLASS/IMAGE.png`` of the first n test digits, perhaps in a category."""
    y = load_examples("digits", n=n).y.tolist()
    for name in names:
        for severity in SEVERITIES:
            pixels = corrupted_digits(name, severity, n)
            for at, label in enumerate(y):
                own = folder / (category or "") / name / str(severity) / str(label)
                own.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[at, :, :, 0]).save(own / f"{at:03d}.png")
    return folder
