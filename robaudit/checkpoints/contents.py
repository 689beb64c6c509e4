"""What the readers of the file formats give: tensors by name, without their elements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from robaudit.checkpoints.members import find_state_dict
from robaudit.checkpoints.pickles import Reading
from robaudit.checkpoints.severity import Finding
from robaudit.checkpoints.values import SymbolicTensor
from robaudit.errors import CheckpointError

MAX_METADATA = 100


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of the state dict; ``dtype`` by torch's name (``float32``)."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Refusal:
    """Why a file that can be read will not be loaded, and what to do about it."""

    message: str
    advice: str | None

    def error(self) -> CheckpointError:
        """The exception that says it."""
        return CheckpointError(self.message, self.advice)


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    ``member`` says where in the file the state dict is (``""``: the whole file is it);
    ``tensors`` are the state dict's alone.
    """

    format: str
    tensors: tuple[TensorInfo, ...] = ()
    member: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    refusal: Refusal | None = None


SAVE_STATE_DICT = (
    "Where you trust the file, load it with the code it came from and save the weights alone: "
    "torch.save(model.state_dict(), PATH)."
)


def shown(text: object, limit: int = 80) -> str:
    r"""Text from a file, made safe for a terminal: escapes for what is not printable, and an end.

    >>> shown("weight"), shown("a\x1b[31m")
    ('weight', 'a\\x1b[31m')
    """
    whole = str(text)[: limit + 1]
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)
    return safe if len(whole) <= limit else safe[:limit] + "..."


def contents_of_pickle(reading: Reading, format: str, path: str) -> Contents:
    """Judge a pickle that was read symbolically, and find the state dict in it.

    Raises:
        CheckpointError: the pickle is damaged, and asks for nothing that would explain it.
    """
    suspicious = tuple(f for f in reading.findings if f.severity != "harmless")
    metadata = _scalars(reading.value)
    if suspicious:
        refusal: Refusal | None = _suspicion(path, suspicious)
    elif reading.damage:
        raise CheckpointError(
            f"{path}: the file is damaged: {shown(reading.damage, 200)}",
            "Download or copy it again.",
        )
    else:
        refusal = None
    try:
        member, state = find_state_dict(reading.value, SymbolicTensor, path)
    except CheckpointError as error:
        refusal = refusal or Refusal(error.message, error.advice)
        return Contents(format, (), "", metadata, reading.findings, refusal)
    tensors = tuple(TensorInfo(name, t.shape, t.dtype) for name, t in state.items())
    return Contents(format, tensors, member, metadata, reading.findings, refusal)


def _suspicion(path: str, suspicious: tuple[Finding, ...]) -> Refusal:
    names = ", ".join(shown(finding.full_name) for finding in suspicious[:5])
    more = f" and {len(suspicious) - 5} more" if len(suspicious) > 5 else ""
    if suspicious[0].severity == "dangerous":
        message = f"{path}: refused: loading this file could run code: it asks for {names}{more}"
        return Refusal(message, "Do not load it elsewhere. Get the weights as .safetensors.")
    message = f"{path}: the file holds more than weights: it asks for {names}{more}"
    return Refusal(message, SAVE_STATE_DICT)


def _scalars(value: object) -> dict[str, str]:
    """The plain values beside the state dict (an epoch, an accuracy), as text."""
    if not isinstance(value, dict):
        return {}
    plain = {
        key: str(entry)
        for key, entry in value.items()
        if isinstance(key, str)
        and (isinstance(entry, bool | float) or _is_short(entry))
        and len(key) <= 200
    }
    return dict(list(plain.items())[:MAX_METADATA])


def _is_short(entry: object) -> bool:
    if isinstance(entry, int):
        return entry.bit_length() <= 64
    return isinstance(entry, str) and len(entry) <= 200
