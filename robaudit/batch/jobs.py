"""A job: one model, data set and threat model, with everything that the result depends on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from robaudit.audit.plan import Plan, planned
from robaudit.audit.probes import Corruptions
from robaudit.request import PlanSpec, Request
from robaudit.schema import SCHEMA_VERSION
from robaudit.types import Norm, radius

Value = bool | int | float | str

# Further probes that a title names one by one.
_FEW = 3


class Job(Request, PlanSpec):
    """What a worker needs to know; plain values, so that it can be sent anywhere.

    Attributes:
        source: a file, or a zoo's name for a model.
        norm, eps: ``None`` where the model's own threat is corruptions of the images.
        peers: the files listed together with this one whose networks are not stated. Those with
            the same keys and shapes are identified together, see
            :class:`robaudit.checkpoints.answers.Answers`.
        group: of models that are alike, for the study.
        hyperparameters: names and values that the manifest gives, for the study.
    """

    source: str
    data: str
    norm: Norm | None
    eps: float | None
    gap: bool = True
    peers: tuple[str, ...] = ()
    group: str | None = None
    hyperparameters: tuple[tuple[str, Value], ...] = ()

    @property
    def plan(self) -> Plan:
        """What is measured: by the model's own threat, or as the preset says."""
        whole = planned(self.preset, self.also, self.union, self.union_each)
        if self.norm is not None:
            return whole
        own = Corruptions()
        others = (p for p in whole.probes if p.name in self.also and p.name != own.name)
        return replace(whole, probes=(own, *others))

    @property
    def threat(self) -> str:
        """Norm and radius in words, or ``corruptions``."""
        return "corruptions" if self.eps is None else f"{self.norm} {radius(self.eps)}"

    @property
    def listed(self) -> Job:
        """The job without its peers, which change with every file that is added to a run.

        Without what the study is told, either: that changes no report.
        """
        return self.changed(peers=(), group=None, hyperparameters=())

    @property
    def measured(self) -> str:
        """What decides the plan beside the threat, in words: ``standard + fast``."""
        union = [f"union {self.union}"] if self.union else []
        return " + ".join((*(() if self.norm is None else (self.preset,)), *self.also, *union))

    @property
    def measured_in_short(self) -> str:
        """As ``measured``; of many further probes only their number."""
        few = self.measured.count(" + ") <= _FEW
        return self.measured if few else f"{self.preset} + {self.measured.count(' + ')} probes"

    @property
    def suite(self) -> tuple[object, ...]:
        """What jobs that are compared in one table have in common."""
        return (self.data, self.split, self.n, self.sample, self.norm, self.eps, self.measured)

    @property
    def examples(self) -> tuple[object, ...]:
        """The settings that decide which examples are loaded."""
        sampled = self.seed if self.sample else None
        common = (self.data, self.data_dir, self.split, self.n, sampled, self.gap, self.train_data)
        return (*common, self.preset, self.measured)


def key_of(job: Job, weights: str, examples: list[str], plan: dict[str, Any]) -> str:
    """A hash of what decides a job's report: jobs with the same key are done once.

    Args:
        weights: hash of the checkpoint, see :func:`robaudit.batch.listing.weights_hash`.
        examples: hashes of the examples, the audited split's first.
        plan: the plan's settings.
    """
    parts = {"schema": SCHEMA_VERSION, "weights": weights, "examples": examples, "plan": plan}
    said = job.model_dump(mode="json", include=_DECIDES)
    text = json.dumps({**parts, "said": said}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


# The data are in the examples' hashes, and the preset in the plan. A job's peers change with every
# new file of a run, and hardly ever the answer.
_DECIDES = {
    "also",
    "arch",
    "normalize",
    "guess",
    "member",
    "weights",
    "trust_pickle",
    "union",
    "union_each",
    "split",
    "norm",
    "eps",
    "seed",
    "precision",
}
