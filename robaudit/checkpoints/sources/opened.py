"""What opening a source gives. No torch at run time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from robaudit.checkpoints.normalization import Normalization


@dataclass(frozen=True)
class Opened:
    """A network from a library, its weights in it, in evaluation mode.

    Attributes:
        network: takes images ``(n, c, h, w)``, in ``[0, 1]`` where ``normalization`` is ``None``.
        architecture: what the library calls it.
        normalization: to be applied before the network; ``None`` where the network has it inside.
        format: of the weights' file.
        sha256: of the weights' file; of several, that of the lines ``hash  name``.
        remarks: what the user should know.
        published: what the library says was measured: ``clean_acc``, ``robust_acc``, ... as
            fractions.
    """

    network: nn.Module
    architecture: str
    normalization: Normalization | None
    format: str
    sha256: str | None
    remarks: tuple[str, ...] = ()
    published: Mapping[str, float | bool | str] = field(default_factory=dict)
