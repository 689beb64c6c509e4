"""Images that are stored as bytes or files, and become float32 in ``[0, 1]`` when they are read.

50 000 images of 3x224x224 are 7.5 GB as bytes and 30 GB as float32. A :class:`StoredImages` behaves
as a tensor but holds no pixels: ``x[rows]`` reads those rows. Functions that process images in
parts need no special code for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

# Largest size, as float32, of a set that is a plain tensor, and of a part that is read when
# indexed.
PLAIN = 1 << 26
LARGE = 1 << 29
# Size of the parts in which a whole set is converted.
_TILE_BYTES = 1 << 26

# Positions (m,) int64 -> images (m, c, h, w): uint8, a pixel being its value over 255, or float32.
Read = Callable[[Tensor], Tensor]


def as_float(raw: Tensor) -> Tensor:
    """Stored images as float32, with the same bits on a GPU as on a CPU.

    >>> as_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist()
    [0.0, 0.20000000298023224, 1.0]
    """
    if raw.dtype is not torch.uint8:
        return raw
    if raw.device.type == "cpu":
        return raw.float() / 255
    # A GPU would multiply by 1/255, which is not the same in the last bit.
    levels = (torch.arange(256).float() / 255).to(raw.device)
    return levels.index_select(0, raw.flatten().int()).view(raw.shape)


class StoredImages(Tensor):
    """``(n, c, h, w)`` float32 in ``[0, 1]``, read row by row; it cannot be written to.

    Indexing returns a plain tensor, or another ``StoredImages`` for more than half a gigabyte.
    Every other operation reads all rows into a plain tensor.

    >>> bytes_ = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    >>> x = StoredImages((6, 1, 2, 2), lambda rows: bytes_[rows])
    >>> x.shape, x[4:].mul(255).round().flatten().int().tolist()
    (torch.Size([6, 1, 2, 2]), [16, 17, 18, 19, 20, 21, 22, 23])
    """

    _read: Read | None

    def __new__(cls, shape: Sequence[int], read: Read | None = None) -> Self:
        made: Self = Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=torch.float32)
        made._read = read
        return made

    def read(self, rows: Tensor) -> Tensor:
        """The stored rows at positions ``(m,)``: uint8 or float32."""
        assert self._read is not None
        return self._read(rows)

    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            return args[0]
        if func is torch.ops.aten.split.Tensor and len(args) == 2 and not kwargs:
            whole, size = args
            return [whole._part(part) for part in torch.split(torch.arange(len(whole)), size)]
        for argument, value in zip(func._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(value, StoredImages):
                raise unwritable()
        # Of these only the precision and the device matter.
        own = _blank if func in _NEW else StoredImages.whole
        args, kwargs = tree_map(
            lambda value: own(value) if isinstance(value, StoredImages) else value,
            (args, kwargs or {}),
        )
        return func(*args, **kwargs)

    def __getitem__(self, rows: Any) -> Tensor:
        first, *rest = rows if isinstance(rows, tuple) else (rows,)
        known = isinstance(first, (slice, list, np.ndarray, Tensor, int, np.integer))
        if not known or any(not isinstance(other, (slice, int)) for other in rest):
            return self.whole()[rows]
        at = positions(len(self), first)
        if at.dim() > 1:
            return self.whole()[rows]
        if at.dim() == 0:
            return self.taken(at[None])[(0, *rest)]
        if not rest and len(at) * self.image_bytes > LARGE:
            return self._part(at)
        return self.taken(at)[(slice(None), *rest)]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[at] for at in range(len(self)))

    def __setitem__(self, rows: Any, images: Any) -> None:
        raise unwritable()

    def taken(self, rows: slice | Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The rows as a plain float32 tensor on the device."""
        return as_float(self.read(positions(len(self), rows)).to(device))

    def _part(self, at: Tensor) -> StoredImages:
        return StoredImages((len(at), *self.shape[1:]), lambda rows: self.read(at[rows]))

    def whole(self) -> Tensor:
        """All rows as a plain tensor."""
        out = torch.empty(self.shape)
        for part in tiles(self):
            out[part] = self.taken(part)
        return out

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        return self.whole().numpy(*args, **kwargs)

    def tolist(self) -> Any:
        return self.whole().tolist()

    def __deepcopy__(self, memo: Any) -> StoredImages:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.whole().__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"StoredImages({tuple(self.shape)})"

    @property
    def image_bytes(self) -> int:
        """Bytes of one image as float32."""
        return 4 * math.prod(self.shape[1:])


def rows_of(x: Tensor, rows: slice | Tensor, device: torch.device) -> Tensor:
    """Rows of images, stored or not, as a plain tensor on the device."""
    return x.taken(rows, device) if isinstance(x, StoredImages) else x[rows].to(device)


def tiles(x: Tensor) -> Iterator[slice]:
    """Slices that cover all rows, each of bounded size in memory."""
    size = max(1, _TILE_BYTES // max(1, 4 * math.prod(x.shape[1:])))
    for start in range(0, len(x), size):
        yield slice(start, min(start + size, len(x)))


def positions(n: int, rows: Any) -> Tensor:
    """Positions ``(m,)`` of rows given by a slice, a list, numbers or a mask over ``n`` rows."""
    if isinstance(rows, np.ndarray):
        rows = torch.from_numpy(rows)
    return torch.arange(n)[rows.cpu() if isinstance(rows, Tensor) else rows]


_NEW = {
    getattr(torch.ops.aten, name).default
    for name in ("new_zeros", "new_ones", "new_empty", "new_full")
}


def _blank(_: StoredImages) -> Tensor:
    return torch.empty(0)


def unwritable() -> RuntimeError:
    return RuntimeError("stored images cannot be written to: clone them")
