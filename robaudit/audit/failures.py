"""What a network raises while it is attacked or differentiated, as a reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from robaudit.errors import NotMeasuredError


@contextmanager
def not_measured() -> Iterator[None]:
    """Turn what the network itself raises, and want of memory, into :class:`NotMeasuredError`."""
    try:
        yield
    except (torch.cuda.OutOfMemoryError, MemoryError):
        raise NotMeasuredError(
            "out of memory; fewer examples (--n) or a smaller --batch-size may fit"
        ) from None
    except RuntimeError as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise NotMeasuredError(f"the network raised: {lines[0][:200]}") from error
