"""The common result of the readers of file formats: state dicts without their elements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any

from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.members import Member, find_members
from robaudit.checkpoints.files.modules import is_module, module_member
from robaudit.checkpoints.files.pickles import Reading
from robaudit.checkpoints.files.plain import plain_values
from robaudit.checkpoints.files.quantised import ADVICE, quantised
from robaudit.checkpoints.files.severity import Finding
from robaudit.checkpoints.files.values import (
    ITEM_SIZES,
    MalformedPickleError,
    Opaque,
    Span,
    SymbolicTensor,
    stored,
)
from robaudit.errors import CheckpointError

_NAMED = 5
# Labels of tensors that are not plain.
_SPECIAL = (
    "torch._utils._rebuild",
    "torch._tensor._rebuild",
    "a conjugated",
    "a parameter of",
    "a tensor of",
)
_LIGHTNING = "pytorch-lightning_version"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of the state dict; ``dtype`` by torch's name (``float32``)."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Refusal:
    """Why a readable file will not be loaded, and what to do about it."""

    message: str
    advice: str | None

    def error(self) -> CheckpointError:
        """The exception that says it."""
        return CheckpointError(self.message, self.advice)


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        members: its state dicts, the one to take first; their tensors are
            :class:`~.values.StoredTensor`.
        note: what kind of file of its format it is.
        remarks: what the user should know.
    """

    format: str
    members: tuple[Member, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    refusal: Refusal | None = None
    note: str = ""
    remarks: tuple[str, ...] = ()


SAVE_STATE_DICT = (
    "Where you trust the file, load it with the code it came from and save the weights alone: "
    "torch.save(model.state_dict(), PATH)."
)
TRUST = f"{SAVE_STATE_DICT} Or let it run here: --trust-pickle together with the file's --sha256."


def contents_of_pickle(
    reading: Reading, format: str, path: str, file: IO[bytes], places: Mapping[str, Span]
) -> Contents:
    """Judge a pickle that was read symbolically, and find the state dicts in it.

    Args:
        file: where ``places``, the spans of its storages by key, are; numbers beside the weights
            that are tensors are read from it.

    Raises:
        CheckpointError: the pickle is damaged, and asks for no suspicious names.
    """
    dangerous = tuple(f for f in reading.findings if f.severity == "dangerous")
    unknown = tuple(f for f in reading.findings if f.severity == "unknown")
    if reading.damage and not dangerous and not unknown:
        raise CheckpointError(
            f"{path}: the file is damaged: {shown(reading.damage, 200)}",
            "Download or copy it again.",
        )
    refusal = _suspicion(path, dangerous, unknown) if dangerous or reading.damage else None
    try:
        found = find_members(reading.value, _state_of)
        damage = None
    except MalformedPickleError as error:
        found, damage = (), Refusal(f"{path}: {shown(error, 200)}", TRUST)
    members = tuple(
        replace(m, tensors={k: stored(t, _place(t, places)) for k, t in m.tensors.items()})
        for m in found
    )
    if refusal is None and not members:
        refusal = damage or (_suspicion(path, (), unknown) if unknown else None)
        refusal = refusal or _no_state_dict(reading.value, path)
    network = tuple(m for m in members if not m.aside)
    weights = {id(t) for member in found if not member.aside for t in member.tensors.values()}
    metadata = plain_values(
        reading.value, lambda t: None if id(t) in weights else _element(t, file, places)
    )
    note = _note(network, reading.value)
    remarks = _remarks(network, unknown) if refusal is None else ()
    return Contents(format, members, metadata, reading.findings, refusal, note, remarks)


def _state_of(value: Any, path: str) -> Member | None:
    if is_module(value):
        return module_member(value, path)
    if not isinstance(value, dict):
        return None
    own = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, SymbolicTensor)}
    special = {
        k: v.label
        for k, v in value.items()
        if isinstance(k, str) and isinstance(v, Opaque) and v.label.startswith(_SPECIAL)
    }
    return Member(path, own, unreadable=special) if own or special else None


def _place(tensor: SymbolicTensor, places: Mapping[str, Span]) -> Span | None:
    return places.get(tensor.storage.key)


def _element(tensor: SymbolicTensor, file: IO[bytes], places: Mapping[str, Span]) -> bytes | None:
    """The bytes of a tensor's only element."""
    span, size = _place(tensor, places), ITEM_SIZES[tensor.dtype]
    if span is None or any(n != 1 for n in tensor.shape):
        return None
    file.seek(span.start + tensor.offset * size)
    return file.read(size)


def unreadable(member: Member, path: str) -> Refusal | None:
    """Why a state dict cannot be read, where it holds more than plain tensors."""
    if not member.unreadable:
        return None
    kind = quantised({}, member.unreadable)
    if kind is not None:
        return Refusal(f"{path}: its weights are quantised, by {kind}", ADVICE)
    name, label = next(iter(member.unreadable.items()))
    what = shown(label.rpartition("._rebuild_")[2].removesuffix("_tensor") or label)
    others = f" (and {len(member.unreadable) - 1} more)" if len(member.unreadable) > 1 else ""
    return Refusal(
        f"{path}: {shown(name)!r}{others} is no plain tensor but {what}: sparse, quantised, nested "
        "or of a subclass",
        "Save plain tensors: tensor.to_dense() or tensor.dequantize(), then torch.save. "
        "Or let the file run here: --trust-pickle together with its --sha256.",
    )


def _suspicion(path: str, dangerous: tuple[Finding, ...], unknown: tuple[Finding, ...]) -> Refusal:
    if dangerous:
        message = f"{path}: refused: loading this file could run code: it asks for "
        return Refusal(
            message + _names((*dangerous, *unknown)),
            "Do not load it elsewhere. Get the weights as .safetensors.",
        )
    return Refusal(
        f"{path}: the file holds more than weights: it asks for {_names(unknown)}", TRUST
    )


def _names(found: tuple[Finding, ...]) -> str:
    names = ", ".join(shown(finding.full_name) for finding in found[:_NAMED])
    return names + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _no_state_dict(tree: Any, path: str) -> Refusal:
    if not isinstance(tree, dict):
        return Refusal(
            f"{path}: the file holds no state dict",
            "Save model.state_dict(), a dictionary of tensors by name.",
        )
    keys = [shown(key, 60) for key in list(tree)[:8] if isinstance(key, str)]
    return Refusal(
        f"{path}: the file holds no state dict"
        + (f"; it has {', '.join(map(repr, keys))}" if keys else ""),
        "Save the state dict as the whole file or under 'state_dict'.",
    )


def _note(members: tuple[Member, ...], tree: Any) -> str:
    if members and members[0].module is not None:
        return f"a whole module, {shown(members[0].module)}, read without running it"
    if isinstance(tree, dict) and _LIGHTNING in tree:
        return "a Lightning checkpoint"
    return ""


def _remarks(members: tuple[Member, ...], unknown: tuple[Finding, ...]) -> tuple[str, ...]:
    if not unknown:
        return ()
    if members[0].module is not None:
        return (
            f"the file is a whole module of the class {shown(members[0].module)}: its weights are "
            "read without running it, and what the class computes is not in the file",
        )
    return (f"objects of unknown classes were left out: {_names(unknown)}",)
