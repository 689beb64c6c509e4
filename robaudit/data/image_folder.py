"""A folder of images with one sub-folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robaudit.data.source import Source
from robaudit.errors import DataError

_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
_GREY = {"1", "L"}
_COLOUR = {"RGB", "RGBA", "P", "LA", "CMYK", "YCbCr"}


def image_folder(folder: Path, split: str) -> Source:
    """The images of ``folder/CLASS/**``; classes and files in the order of their names.

    The first file decides between one channel and three: grey images in a coloured set become
    RGB, a coloured image in a grey set is an error. Transparency is dropped. As the files are
    ordered by class, the first n are few classes: draw n at random instead.

    Raises:
        DataError: no such folder, no images in it, images that differ in size or cannot be
            read, or another split than ``test``: a folder is one split.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if split != "test":
        raise DataError(
            f"{folder}: a folder of images is the split test, not {split}",
            "Give the folder of the other split by its own name.",
        )
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in _ENDINGS and path.is_file()
    ]
    if not found:
        raise DataError(
            f"{folder}: no images in sub-folders of it",
            f"Put each class into a folder of its own; known endings: {' '.join(sorted(_ENDINGS))}",
        )
    first = found[0][0]
    mode, size = _header(first)

    def take(positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        images = [_decode(found[i][0], mode, size, first) for i in positions]
        labels = torch.tensor([found[i][1] for i in positions], dtype=torch.int64)
        return torch.from_numpy(np.stack(images)).float() / 255, labels

    return Source(len(found), len(names), take)


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    """Channels (Pillow's ``L`` or ``RGB``) and (width, height), without decoding."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return ("L" if image.mode in _GREY else "RGB"), image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error})") from error


def _decode(path: Path, mode: str, size: tuple[int, int], first: Path) -> np.ndarray:
    """One image as uint8 ``(c, h, w)``."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.size != size:
                raise DataError(
                    f"{path}: {image.width}x{image.height} pixels, but {first.name} has "
                    f"{size[0]}x{size[1]}",
                    "All images must have one size: resize or crop them as the model expects.",
                )
            if image.mode not in _GREY | _COLOUR:
                raise DataError(
                    f"{path}: pixels of kind {image.mode} are not read",
                    "Save it with 8 bits per channel, grey or RGB.",
                )
            if mode == "L" and image.mode in _COLOUR:
                raise DataError(
                    f"{path}: a colour image, but {first.name} is grey",
                    "Save all images as grey or all as RGB.",
                )
            pixels = np.asarray(image.convert(mode))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({error})") from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
