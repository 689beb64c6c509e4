"""Layer names: those in the author's network, and those in the audited module.

A :class:`~robaudit.checkpoints.Classifier` holds the author's network as ``network``; in any
other module both names are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from robaudit.audit.probe import Layers

if TYPE_CHECKING:
    from torch import nn

    from robaudit.audit.plan import Plan


def authors(model: nn.Module) -> Callable[[str], str]:
    """A function that turns module names, also within a sentence, into the author's."""
    if _network(model) is model:
        return str

    def own(text: str) -> str:
        whole = re.sub(r"module 'network' \((\w+)\)", r"the forward of \1", text)
        return re.sub(r"(?<![\w.])network\.(?=\w)", "", whole)

    return own


def inside(model: nn.Module, layers: Layers) -> Layers:
    """The module's names of layers that are given by the author's names."""
    if not isinstance(layers, tuple) or _network(model) is model:
        return layers
    return tuple(f"network.{name}" for name in layers)


def restricting(model: nn.Module, layers: Layers) -> Sequence[str] | None:
    """:func:`inside` for what takes ``None`` as all parameters."""
    return None if layers == "all" else inside(model, layers)


def check_names(model: nn.Module, plan: Plan) -> None:
    """Check before any work that the network has the layers that a plan names.

    Raises:
        UsageError: it lacks one.
    """
    from robaudit.curvature.selection import chosen_parameters
    from robaudit.engine import effective

    own = effective(_network(model))
    for probe in plan.probes:
        layers = getattr(probe, "layers", None)
        if isinstance(layers, tuple):
            chosen_parameters(own, layers)


def _network(model: nn.Module) -> nn.Module:
    """The author's network."""
    from robaudit.checkpoints import Classifier

    return model.network if isinstance(model, Classifier) else model
