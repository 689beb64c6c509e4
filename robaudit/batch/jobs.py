"""A job: one model, one data set, one threat model, and everything that its result depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from robaudit.schema import SCHEMA_VERSION
from robaudit.types import Norm


@dataclass(frozen=True)
class Job:
    """What a worker needs to know; plain values, so that it can be sent anywhere.

    Attributes:
        source: a file, or a zoo's name for a model.
        eps: the radius, settled.
        peers: the files listed together with this one, as far as nobody says what they are: those
            of them with its keys and shapes are one question, see
            :class:`robaudit.checkpoints.answers.Answers`.
    """

    source: str
    data: str
    norm: Norm
    eps: float
    preset: str
    data_dir: str | None = None
    split: str = "test"
    n: int | None = None
    sample: bool = False
    gap: bool = True
    train_data: str | None = None
    arch: str | None = None
    normalize: str | None = None
    guess: bool = False
    peers: tuple[str, ...] = ()
    weights: Literal["raw", "ema", "swa"] | None = None
    member: str | None = None
    sha256: str | None = None
    trust_pickle: bool = False
    model_dir: str | None = None
    download: bool = False
    seed: int = 0
    precision: Literal["fp32", "bf16", "float64"] = "fp32"

    @property
    def suite(self) -> tuple[object, ...]:
        """What jobs have in common that can stand in one table, short of the examples' hash."""
        return (self.data, self.split, self.n, self.sample, self.norm, self.eps, self.preset)

    @property
    def examples(self) -> tuple[object, ...]:
        """What decides which examples are loaded."""
        sampled = self.seed if self.sample else None
        common = (self.data, self.data_dir, self.split, self.n, sampled, self.gap, self.train_data)
        return (*common, self.preset)


def key_of(job: Job, weights: str, examples: list[str], plan: dict[str, Any]) -> str:
    """A job's name by content: two that have it give the same report, wherever their files lie.

    Args:
        weights: hash of the checkpoint, see :func:`robaudit.batch.listing.weights_hash`.
        examples: hashes of the examples, the audited split's first.
        plan: the plan's settings.
    """
    said = asdict(job)
    for name in ("source", "data", "data_dir", "train_data", "model_dir", "download", "n"):
        del said[name]
    # Which of a run's files stand together changes with every new one, and hardly ever the answer.
    del said["peers"]
    for name in ("sample", "gap", "sha256", "preset"):  # the examples' hashes and the plan say it
        del said[name]
    parts = {"schema": SCHEMA_VERSION, "weights": weights, "examples": examples, "plan": plan}
    text = json.dumps({**parts, "said": said}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
