"""The folder of a training run: checkpoints, metrics, and the state to go on from."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robaudit.atomic_write import atomic_write, clear_drafts
from robaudit.errors import UsageError, first_line
from robaudit.training.origins import CHECKPOINTS, RUN

if TYPE_CHECKING:
    from torch import Tensor

_STATE, _METRICS = "state.pt", "metrics.csv"

Row = dict[str, float | None]


@dataclass(frozen=True)
class TrainFolder:
    """What an earlier start of the same run left, if there was one.

    Attributes:
        state: of its last finished epoch, or ``None``.
        rows: its metrics, an epoch each.
    """

    path: Path
    state: dict[str, Any] | None
    rows: list[Row]

    def save(
        self, folder: str, epoch: int, tensors: Mapping[str, Tensor], said: Mapping[str, str]
    ) -> None:
        """A safetensors checkpoint that says what it is."""
        path = self.path / folder / f"epoch_{epoch:03d}.safetensors"
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, _stored(tensors, {**said, "epoch": str(epoch)}))

    def keep(
        self, name: str, epoch: int, tensors: Mapping[str, Tensor], said: Mapping[str, str]
    ) -> None:
        """The same as ``name``, a file of ``torch.save``, in place of an earlier epoch's."""
        import torch

        blob = io.BytesIO()
        state = {key: value.cpu() for key, value in tensors.items()}
        torch.save({"state_dict": state, **said, "epoch": epoch}, blob)
        atomic_write(self.path / name, blob.getvalue())

    def is_best(self, row: Row, column: str) -> bool:
        """Whether no earlier epoch has as much in this column."""
        return all((row[column] or 0) > (earlier[column] or 0) for earlier in self.rows)

    def commit(self, state: dict[str, Any], row: Row) -> None:
        """The metrics with this epoch's, then the state: from here on the epoch is done."""
        import torch

        self.rows.append(row)
        atomic_write(self.path / _METRICS, _table(self.rows))
        blob = io.BytesIO()
        torch.save({"state": state, "rows": self.rows}, blob)
        atomic_write(self.path / _STATE, blob.getvalue())

    def checkpoints(self) -> list[Path]:
        """Those of the network as trained, in the order of epochs."""
        return sorted((self.path / CHECKPOINTS).glob("epoch_*.safetensors"))


def train_folder(path: Path, run: dict[str, Any]) -> TrainFolder:
    """The folder of this run, made or taken up.

    Args:
        run: everything the weights depend on, as JSON takes it.

    Raises:
        UsageError: the folder holds another run or other files, or cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        said = path / RUN
        if not said.is_file():
            clear_drafts(path)
            if any(path.iterdir()):
                raise UsageError(
                    f"--out {path} has files in it and no training run", "Name another folder."
                )
            atomic_write(said, json.dumps(run, indent=2, sort_keys=True).encode())
        else:
            _compare(path, json.loads(said.read_text("utf-8")), run)
        if not (path / _STATE).is_file():
            return TrainFolder(path, None, [])
    except (OSError, ValueError) as error:
        raise UsageError(f"--out {path}: {error}", "Name another folder.") from None
    return TrainFolder(path, *_kept(path / _STATE))


def _kept(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """State and rows of the last finished epoch."""
    import pickle

    import torch

    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        return kept["state"], kept["rows"]
    except (RuntimeError, EOFError, KeyError, TypeError, OSError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"{path} cannot be read: {first_line(error)}",
            "Remove it to begin anew in this folder.",
        ) from None


def _compare(path: Path, earlier: Any, run: dict[str, Any]) -> None:
    # A setting that an earlier release did not have and this run does not use is no difference.
    now, earlier = _used(json.loads(json.dumps(run))), _used(earlier)
    keys = sorted(set(now) | set(earlier)) if isinstance(earlier, dict) else ["run"]
    for key in keys:
        there = earlier.get(key) if isinstance(earlier, dict) else earlier
        if there != now.get(key):
            raise UsageError(
                f"--out {path} holds another run: its {key} is not the same",
                "Name another folder, or give the same options to go on.",
            )


def _used(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _used(part) for key, part in value.items() if part is not None}


def _stored(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> bytes:
    """A safetensors file with its metadata in order: the library writes them in a random one."""
    from safetensors.torch import save

    blob = save({name: value.cpu().contiguous() for name, value in tensors.items()}, dict(said))
    end = 8 + int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(end - 8)
    # Where another writer of JSON needs more room, the order is not worth it.
    return blob[:8] + text + blob[end:] if len(text) == end - 8 else bytes(blob)


def _table(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    return text.getvalue().encode()
