"""Images that stay where they lie, and are float32 in ``[0, 1]`` only while they are worked on.

50 000 images of 3x224x224 are 7.5 GB as bytes and 30 GB as float32. A :class:`StoredImages` is a
tensor to whoever looks at it, but holds no pixels: ``x[rows]`` reads those rows. Functions that go
over their images in parts need no other code for it than for a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

# As float32, sets up to so many bytes are plain tensors; parts of a stored set above it are stored.
PLAIN = 1 << 26
LARGE = 1 << 29
# Images that are converted together where a whole set is gone through.
_TILE_BYTES = 1 << 26

# Positions (m,) int64 -> images (m, c, h, w): uint8, a pixel being its value over 255, or float32.
Read = Callable[[Tensor], Tensor]


def as_float(raw: Tensor) -> Tensor:
    """Images float32 from what is stored; on a GPU the same bits as on a CPU.

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

    Indexing gives a plain tensor of the rows asked for, or for more than half a gigabyte of them
    another one of this kind. Every other operation reads all rows, as a plain tensor.

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
        """What is stored of the rows at positions ``(m,)``: uint8 or float32."""
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
            return [whole._some(part) for part in torch.split(torch.arange(len(whole)), size)]
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
            return self._some(at)
        return self.taken(at)[(slice(None), *rest)]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[at] for at in range(len(self)))

    def __setitem__(self, rows: Any, images: Any) -> None:
        raise unwritable()

    def taken(self, rows: slice | Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The rows as a plain tensor on the device, where they become float32."""
        return as_float(self.read(positions(len(self), rows)).to(device))

    def _some(self, at: Tensor) -> StoredImages:
        return StoredImages((len(at), *self.shape[1:]), lambda some: self.read(at[some]))

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
        """Of one image as float32."""
        return 4 * math.prod(self.shape[1:])


def rows_of(x: Tensor, rows: slice | Tensor, device: torch.device) -> Tensor:
    """Rows of images as a plain tensor on the device, however they are kept."""
    return x.taken(rows, device) if isinstance(x, StoredImages) else x[rows].to(device)


def tiles(x: Tensor) -> Iterator[slice]:
    """All rows, in parts that take little memory."""
    size = max(1, _TILE_BYTES // max(1, 4 * math.prod(x.shape[1:])))
    for start in range(0, len(x), size):
        yield slice(start, min(start + size, len(x)))


def positions(n: int, rows: Any) -> Tensor:
    """The rows' numbers, of a slice, a list, numbers or a mask over ``n`` rows."""
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
    return RuntimeError("images that are read from where they lie cannot be written to: clone them")
