"""Layer names: as the network's author knows them, and as the audited module has them.

A :class:`~robaudit.checkpoints.Classifier` holds the author's network as ``network``; of another
module every name is its author's.
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
    """Takes names, alone or in a sentence, to the author's."""
    if _network(model) is model:
        return str

    def own(text: str) -> str:
        whole = re.sub(r"module 'network' \((\w+)\)", r"the forward of \1", text)
        return re.sub(r"(?<![\w.])network\.(?=\w)", "", whole)

    return own


def inside(model: nn.Module, layers: Layers) -> Layers:
    """Takes the author's names to the module's."""
    if not isinstance(layers, tuple) or _network(model) is model:
        return layers
    return tuple(f"network.{name}" for name in layers)


def restricting(model: nn.Module, layers: Layers) -> Sequence[str] | None:
    """:func:`inside` for what takes ``None`` as all parameters."""
    return None if layers == "all" else inside(model, layers)


def check_names(model: nn.Module, plan: Plan) -> None:
    """Find out before any work whether the network has the layers that a plan names.

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
