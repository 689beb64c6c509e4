"""A folder of images with one sub-folder per class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robaudit.data.source import Source
from robaudit.errors import DataError, first_line

_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"}
_GREY = {"1", "L"}
_COLOUR = {"RGB", "RGBA", "P", "LA", "CMYK", "YCbCr"}
# Fewer images than this are decoded without threads.
_FEW = 4


def image_folder(folder: Path, split: str) -> Source:
    """The images of ``folder/CLASS/**``; classes and files in the order of their names.

    The first file determines the number of channels: grey images in a coloured set become RGB, a
    coloured image in a grey set is an error. Transparency is dropped. As files are ordered by
    class, the first n cover few classes: draw n at random instead.

    Raises:
        DataError: the folder does not exist or has no images, images differ in size or cannot be
            read, or the split is not ``test``: a folder is one split.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if split != "test":
        raise DataError(
            f"{folder}: a folder of images is the split test, not {split}",
            "Name the folder of the other split.",
        )
    names = class_folders(folder)
    found = listed(folder, names)
    decoder = Decoder.like(found[0][0])

    def images(positions: Sequence[int]) -> Tensor:
        return decoder.images([found[position][0] for position in positions])

    def labels(positions: Sequence[int]) -> Tensor:
        return torch.tensor([found[i][1] for i in positions], dtype=torch.int64)

    own = Source(len(found), decoder.shape, labels, images, len(names), decoded=True)
    return replace(own, class_names=tuple(names))


def class_folders(folder: Path) -> list[str]:
    """The names of its sub-folders, which are the classes, in order."""
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def listed(folder: Path, names: Sequence[str]) -> list[tuple[Path, int]]:
    """The image files of each class's folder, with the class's number.

    Raises:
        DataError: there are none.
    """
    found = [
        (path, label)
        for label, name in enumerate(names)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in _ENDINGS and path.is_file()
    ]
    if not found:
        raise DataError(
            f"{folder}: no images in sub-folders of it",
            f"Put each class into a separate folder; known endings: {' '.join(sorted(_ENDINGS))}",
        )
    return found


@dataclass(frozen=True)
class Decoder:
    """Decodes image files, which must all have the channels and the size of the first.

    Attributes:
        mode: Pillow's ``L`` or ``RGB``.
        size: width and height.
    """

    first: Path
    mode: str
    size: tuple[int, int]

    @classmethod
    def like(cls, first: Path) -> Decoder:
        """For images like this one.

        Raises:
            DataError: it is no readable image.
        """
        return cls(first, *_header(first))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image, ``(c, h, w)``."""
        return (1 if self.mode == "L" else 3, self.size[1], self.size[0])

    def images(self, paths: Sequence[Path]) -> Tensor:
        """The files as uint8 ``(n, c, h, w)``.

        Raises:
            DataError: one is missing, unreadable, or of another size or kind.
        """

        def one(path: Path) -> np.ndarray:
            return _decode(path, self.mode, self.size, self.first)

        if len(paths) < _FEW:
            return torch.from_numpy(np.stack([one(path) for path in paths]))
        # Pillow releases the interpreter lock while it decodes.
        with ThreadPoolExecutor(_cores()) as pool:
            return torch.from_numpy(np.stack(list(pool.map(one, paths))))


def _header(path: Path) -> tuple[str, tuple[int, int]]:
    """Channels (Pillow's ``L`` or ``RGB``) and (width, height), without decoding."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice its limit on pixels.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return ("L" if image.mode in _GREY else "RGB"), image.size
    except Exception as error:
        raise _unreadable(path, error) from error


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
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _unreadable(path: Path, error: Exception) -> DataError:
    """An error for a damaged file, on which Pillow's readers raise various exceptions."""
    return DataError(f"{path}: not a readable image ({first_line(error)})")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
