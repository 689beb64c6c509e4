"""What ``robaudit inspect`` shows of a file, without running it and without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from robaudit.checkpoints.architectures.architecture import Candidate
from robaudit.checkpoints.architectures.registry import suspect_among
from robaudit.checkpoints.effective import readings
from robaudit.checkpoints.files.container import Container, Description, read_container
from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.hashing import BytesRead
from robaudit.checkpoints.files.quantised import quantised
from robaudit.checkpoints.sidecar import Statement, statement_of
from robaudit.checkpoints.wrapping import Unwrapped

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Inspection(Description):
    """A checkpoint file, as far as it can be known without loading it.

    Attributes:
        prefix: what all tensor names begin with and will lose when the file is loaded.
        parameters: weights in the tensors, batch norm's running statistics not counted.
        architecture: the network it is, or ``None``; ``architecture_reason`` says how that is
            known, or why it is not.
        normalization: what the file says of its input normalisation, or ``None``.
    """

    prefix: str
    parameters: int
    architecture: str | None
    architecture_reason: str
    normalization: str | None
    normalization_reason: str


def inspect_file(
    path: str | Path,
    *,
    hash: bool | None = None,
    member: str | None = None,
    weights: str | None = None,
    progress: BytesRead | None = None,
) -> Inspection:
    """Describe a checkpoint, a file or a Hugging Face folder, without loading it.

    Args:
        path: the file or the folder.
        hash: compute the SHA-256; by default for checkpoints up to 256 MB.
        member: the state dict to show, where there are several.
        weights: ``raw``, ``ema`` or ``swa``: the weights as trained, or a running average.
        progress: called with the number of bytes of each piece that is hashed.

    Raises:
        CheckpointError: there is no such file, or it is damaged or no checkpoint. A dangerous
            file raises nothing: its ``findings`` and ``refusal`` say what it is.
        UsageError: there is no such member, or there are no such weights.
    """
    container = read_container(path, hash=hash, member=member, weights=weights, progress=progress)
    statement = statement_of(container)
    stages, _ = readings({info.name: info.shape for info in container.tensors})
    wrapping = stages[-1]
    suspects = suspect_among([stage.shapes for stage in stages])
    architecture, reason = _architecture(container, statement, suspects)
    normalization, why = _normalization(statement, wrapping, suspects)
    described: dict[str, Any] = {f.name: getattr(container, f.name) for f in fields(Description)}
    return Inspection(
        **described,
        prefix=wrapping.prefix,
        parameters=sum(
            math.prod(info.shape) for info in container.tensors if not info.name.endswith(_BUFFERS)
        ),
        architecture=architecture,
        architecture_reason=reason,
        normalization=normalization,
        normalization_reason=why,
    )


def _architecture(
    container: Container, statement: Statement | None, suspects: tuple[Candidate, ...]
) -> tuple[str | None, str]:
    if statement is not None and statement.architecture:
        return statement.architecture, f"said by {statement.where}"
    if not container.tensors:
        return None, "there are no tensors to tell it by"
    kind = quantised({info.name: info.dtype for info in container.tensors}, {})
    if kind is not None:
        return None, f"its weights are quantised, by {kind}"
    labels = list(dict.fromkeys(shown(candidate.label, 200) for candidate in suspects))
    if not labels:
        return None, "its keys are those of no known architecture; name it with --arch"
    if len(labels) == 1:
        return labels[0], (
            "determined by its characteristic keys; loading checks every key and shape"
        )
    more = f" and {len(labels) - 2} more" if len(labels) > 2 else ""
    return labels[0], (
        f"open: its characteristic keys are also those of {labels[1]}{more}; loading checks every "
        "key and shape, and asks the data"
    )


def _normalization(
    statement: Statement | None, wrapping: Unwrapped, suspects: tuple[Candidate, ...]
) -> tuple[str | None, str]:
    if statement is not None and statement.normalization:
        return statement.normalization, f"said by {statement.where}"
    if wrapping.mean is not None:
        return (
            "in the file",
            f"said by its tensors {shown(wrapping.mean)} and {shown(wrapping.std)}",
        )
    if suspects and suspects[0].family.normalization:
        return suspects[0].family.normalization, "determined by the architecture, whose own it is"
    return None, "open: the file does not say; loading tries the usual ones on the data"
