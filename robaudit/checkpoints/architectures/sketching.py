"""Networks on the meta device: nothing is allocated, whatever sizes a malicious file claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_WEIGHTS = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


class _Weightless(TorchFunctionMode):
    """Creates weights on the meta device, but not the results of ``arange`` and the like."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in _WEIGHTS and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)


def sketch(build: Callable[[], nn.Module]) -> nn.Module:
    """The network on the meta device; raises whatever ``build`` does."""
    try:
        with torch.device("meta"):
            return build()
    except RuntimeError:  # a network that computes its own sizes with tensors
        with _Weightless():
            return build().to("meta")
