"""What ``robaudit inspect`` shows: everything about a file, without running it or torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from robaudit.checkpoints.architectures.registry import suspect
from robaudit.checkpoints.container import Container, read_container
from robaudit.checkpoints.contents import Refusal, TensorInfo
from robaudit.checkpoints.members import common_prefix
from robaudit.checkpoints.severity import Finding
from robaudit.checkpoints.sidecar import Statement, statement_of

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Inspection:
    """A checkpoint file, as far as it can be known without loading it.

    Attributes:
        format, size, sha256, member, tensors, findings, metadata, refusal: see
            :class:`~robaudit.checkpoints.container.Container`.
        prefix: what all tensor names begin with and will lose when the file is loaded.
        parameters: weights in the tensors, batch norm's running statistics not counted.
        architecture: the network it is, or ``None``; ``architecture_reason`` says how that is
            known, or why it is not.
        normalization: what the file says of its input normalisation, or ``None``.
    """

    path: Path
    format: str
    size: int
    sha256: str | None
    member: str
    prefix: str
    tensors: tuple[TensorInfo, ...]
    parameters: int
    findings: tuple[Finding, ...]
    metadata: Mapping[str, str]
    architecture: str | None
    architecture_reason: str
    normalization: str | None
    normalization_reason: str
    refusal: Refusal | None


def inspect_file(path: str | Path, *, hash: bool | None = None) -> Inspection:
    """Find out what a checkpoint file is.

    Args:
        path: the file.
        hash: compute the SHA-256; by default for files up to 256 MB.

    Raises:
        CheckpointError: there is no such file, or it is damaged or no checkpoint. A dangerous
            file raises nothing: its ``findings`` and ``refusal`` say what it is.
    """
    container = read_container(path, hash=hash)
    statement = statement_of(container)
    prefix = common_prefix(info.name for info in container.tensors)
    architecture, reason = _architecture(container, statement, prefix)
    said = statement.normalization if statement else None
    return Inspection(
        path=container.path,
        format=container.format,
        size=container.size,
        sha256=container.sha256,
        member=container.member,
        prefix=prefix,
        tensors=container.tensors,
        parameters=sum(
            math.prod(info.shape) for info in container.tensors if not info.name.endswith(_BUFFERS)
        ),
        findings=container.findings,
        metadata=container.metadata,
        architecture=architecture,
        architecture_reason=reason,
        normalization=said,
        normalization_reason=(
            f"named by {statement.where}" if statement and said else "the file does not say"
        ),
        refusal=container.refusal,
    )


def _architecture(
    container: Container, statement: Statement | None, prefix: str
) -> tuple[str | None, str]:
    if statement is not None and statement.architecture:
        return statement.architecture, f"named by {statement.where}"
    if not container.tensors:
        return None, "there are no tensors to tell it by"
    found = suspect({i.name.removeprefix(prefix): i.shape for i in container.tensors})
    if found is None:
        return None, "its keys are those of no known architecture; name it with --arch"
    name, arguments = found
    details = ", ".join(f"{key} {value}" for key, value in arguments.items())
    return name, f"its tell-tale keys are there ({details}); loading checks every key and shape"
