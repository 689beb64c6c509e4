"""Rows of work in blocks of a fixed number of images.

Attacks keep their state in blocks of a round of passes, one on each device. On a CPU that is one
tile, so that its tensors stay in the cache and every operation has the same shape whatever the
number of images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from robaudit.engine import TILE, Runner
from robaudit.engine.projections import per_image
from robaudit.errors import NotMeasuredError

# Bytes of one tensor of all rows that are attacked together: they change no result.
_BYTES_CPU = 4 << 20
_BYTES_GPU = 256 << 20


def rows_at_once(runner: Runner, x: Tensor) -> int:
    """How many images of the shape of ``x`` are attacked together, a multiple of ``TILE``.

    On GPUs these are several rounds of passes where memory allows it.
    """
    cpu = runner.device.type == "cpu"
    fitting = (_BYTES_CPU if cpu else _BYTES_GPU) // (4 * max(1, x[0].numel()))
    most = 64 * TILE if cpu else max(64 * TILE, 4 * runner.per_round)
    return max(4 * TILE, min(fitting, most) // TILE * TILE)


def parts(n: int, size: int) -> Iterator[slice]:
    """``range(n)`` in slices of at most ``size``."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def filled(rows: Tensor) -> Tensor:
    """``rows`` with the last one repeated up to a multiple of ``TILE``."""
    missing = -len(rows) % TILE
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows


class Block:
    """The state of some images under attack: tensors with one entry per image.

    Subclasses name their tensors. The first ``used`` images are real; the others pad the block with
    copies of the last one.
    """

    used: int

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The state by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


AnyBlock = TypeVar("AnyBlock", bound=Block)


def packed(kind: type[AnyBlock], size: int, state: dict[str, Tensor]) -> list[AnyBlock]:
    """Rows in blocks of ``size``, the last one filled to a tile."""
    n = len(next(iter(state.values())))
    blocks = []
    for part in parts(n, size):
        block = kind()
        block.used = part.stop - part.start
        for name, whole in state.items():
            setattr(block, name, filled(whole[part]))
        blocks.append(block)
    return blocks


def gathered(blocks: Sequence[Block], name: str) -> Tensor:
    """One tensor of the real rows of all blocks."""
    return torch.cat([block.tensors[name][: block.used] for block in blocks])


def repacked(blocks: Sequence[AnyBlock], keep: Tensor, size: int) -> list[AnyBlock]:
    """The kept rows (bool, over the real rows of all blocks) in new blocks."""
    at = torch.nonzero(keep)[:, 0]
    state = {name: gathered(blocks, name)[at] for name in blocks[0].tensors}
    return packed(type(blocks[0]), size, state)


def raised(best: Tensor, example: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Raise each example's best value to the highest of its rows.

    Args:
        best: ``(n,)`` by example.
        example, values: ``(m,)`` the example and the value of each row.

    Returns: the new best values, the examples whose value rose, and the row that it comes from, of
        equal ones the first.
    """
    highest = best.scatter_reduce(0, example, values, "amax")
    row = torch.arange(len(example), device=example.device)
    wins = (values == highest[example]) & (values > best[example])
    own = torch.where(wins, row, len(row))
    first = row.new_full(best.shape, len(row)).scatter_reduce(0, example, own, "amin")
    risen = torch.nonzero(first < len(row))[:, 0]
    return highest, risen, first[risen]


def any_row(mask: Tensor) -> bool:
    """Whether any entry is set; on a GPU always true, as the answer would have to be waited for."""
    return mask.device.type != "cpu" or bool(mask.any())


def put(images: Tensor, mask: Tensor, others: Tensor) -> Tensor:
    """``others`` where the mask ``(n,)`` is set, else ``images``, which may be changed in place."""
    if mask.device.type != "cpu":
        return torch.where(per_image(images, mask), others, images)
    rows = torch.nonzero(mask)[:, 0]
    if len(rows):
        images[rows] = others[rows]
    return images


def any_broken(broken: Tensor, finite: Sequence[Tensor]) -> bool:
    """Whether any row is broken, read from the device at once with whether all is finite.

    Args:
        broken, finite: masks of any shape.

    Raises:
        NotMeasuredError: some of the logits or losses were not finite.
    """
    broke, *good = torch.stack([broken.any(), *(mask.all() for mask in finite)]).tolist()
    _check(all(good))
    return bool(broke)


def check_finite(values: Tensor) -> None:
    """Raise if some of the logits or losses are not finite.

    Raises:
        NotMeasuredError: some of the values are not finite.
    """
    _check(bool(values.isfinite().all()))


def _check(finite: bool) -> None:
    if not finite:
        raise NotMeasuredError(
            "the network's logits are not finite on some images",
            "Look for NaN or overflow in the weights; low precision can be a cause.",
        )
