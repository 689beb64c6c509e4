"""What the probes of one audit share: model, examples, and adversarial examples made once."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robaudit.attacks.pgd import pgd
from robaudit.attacks.result import AttackResult
from robaudit.audit.adversarial_file import Adversarial
from robaudit.audit.journal import weights_digest
from robaudit.audit.probes.pgd import Pgd
from robaudit.audit.radii import grown, worse
from robaudit.audit.work import Work
from robaudit.display import Watch, no_watch
from robaudit.engine import (
    Accelerated,
    Asked,
    Precision,
    Runner,
    StraightThrough,
    Voted,
    accelerate,
    device_of,
    edge_nudge,
    frozen,
)
from robaudit.engine.captured import Captured
from robaudit.engine.logits import Forward
from robaudit.engine.precision import candidates, coarsest
from robaudit.engine.runner import BatchSize
from robaudit.types import Cache, Examples, ThreatModel, no_cache


@dataclass(frozen=True)
class Radius:
    """Which examples withstand an attack within one radius, and their losses."""

    eps: float
    robust: Tensor
    loss: Tensor | None = None


@dataclass
class Context:
    """One audit in progress.

    Attributes:
        splits: by name, the audited one first; a second one only where the gap is measured.
        precision: asked for searches, whose finds are verified in float32.
        double: curvature is measured in float64.
        radii: smaller than the threat model's, ascending, for a curve of its own: what is broken
            within one of them is broken within the larger ones, and a PGD begins where the radius
            before left it. Nothing measured at the threat model's radius depends on them.
        surrogate: another network whose adversarial examples are tried on this one.
        replayed: adversarial images made earlier, of the audited examples.
        watch: opens a progress display for a named piece of work.
        cache: keeps finished pieces of attacks.
        work: what is done of the plan.
        passes: of images, at most, that the plan takes.
        data_dir: where data sets are, for images that belong to the audited ones.
        outcomes: per-example results by ``split.name``, for ``examples.npz``.
        broken: by attack, adversarial images of the audited split and which of them count.
        nearer: by attack, which examples it broke at the threat model's radius or within one of
            ``radii``.
    """

    model: nn.Module
    splits: Mapping[str, Examples]
    threat: ThreatModel
    seed: int
    batch_size: BatchSize
    precision: Asked = "auto"
    radii: tuple[float, ...] = ()
    surrogate: nn.Module | None = None
    replayed: Adversarial | None = None
    watch: Watch = no_watch
    cache: Cache = no_cache
    outcomes: dict[str, Tensor] = field(default_factory=dict)
    broken: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    nearer: dict[str, Tensor] = field(default_factory=dict)
    double: bool = False
    passes: float = 0
    data_dir: Path | None = None
    work: Work = field(default_factory=Work)
    _made: dict[tuple[str, Pgd], AttackResult] = field(default_factory=dict)
    _runners: list[Runner] = field(default_factory=list)
    _captured: dict[tuple[int, Precision, bool], Captured] = field(default_factory=dict)
    _engines: dict[tuple[bool, ThreatModel], Accelerated] = field(default_factory=dict)

    def part(self, rows: Tensor, threat: ThreatModel | None = None) -> Context:
        """An audit of these rows of the audited split, none of which is broken yet.

        The network is prepared for fast searches once for all parts of a threat model.

        Args:
            rows: positions ``(m,)``.
            threat: another threat model than the audit's.
        """
        threat = threat or self.threat
        examples = self.splits[self.main].taken(rows)
        return dataclasses.replace(
            self,
            splits={self.main: examples},
            radii=() if threat != self.threat else self.radii,
            threat=threat,
            cache=self.keeping("part", threat, examples.sha256, examples.index.tolist()),
            broken={},
            nearer={},
            outcomes={f"{self.main}.accuracy.clean": torch.ones(len(rows), dtype=torch.bool)},
            _made={},
        )

    @property
    def main(self) -> str:
        """The split that is audited."""
        return next(iter(self.splits))

    @property
    def own(self) -> nn.Module:
        """The network itself, however it is attacked."""
        inner = self.model
        while isinstance(inner, Voted | StraightThrough):
            inner = inner.network
        return inner

    @property
    def samples(self) -> int | None:
        """Draws of a network that draws at random."""
        return self.model.samples if isinstance(self.model, Voted) else None

    @property
    def straightened(self) -> tuple[str, ...]:
        """Modules that gradients go straight through."""
        inner = self.model.network if isinstance(self.model, Voted) else self.model
        return inner.names if isinstance(inner, StraightThrough) else ()

    @property
    def described(self) -> dict[str, Any]:
        """Settings that every attack records: draws, and modules that gradients go through."""
        drawn = {} if self.samples is None else {"samples": self.samples}
        straight = {"straight_through": list(self.straightened)} if self.straightened else {}
        return {**drawn, **straight}

    @property
    def training(self) -> str | None:
        """The training split: the second one, or the audited one where that is it."""
        others = [split for split in self.splits if split != self.main]
        return others[0] if others else "train" if self.main == "train" else None

    @property
    def smaller(self) -> list[ThreatModel]:
        """One threat model for each of ``radii``."""
        return [dataclasses.replace(self.threat, eps=eps) for eps in self.radii]

    @property
    def engine(self) -> Accelerated:
        """The network prepared for fast searches, whose results are verified in float32."""
        return self._prepared(self.model)

    def _prepared(self, model: nn.Module) -> Accelerated:
        """The audited network or the surrogate, prepared for fast searches."""
        nearest = min((self.threat, *self.smaller), key=lambda threat: threat.eps)
        key = model is self.model, nearest
        if key not in self._engines:
            images = self.splits[self.main].x
            self._engines[key] = accelerate(
                model,
                tuple(images.shape[1:]),
                self.precision,
                examples=images,
                threat=nearest,
                passes=self.passes,
            )
        return self._engines[key]

    @property
    def searched(self) -> Precision:
        """The coarsest precision that was searched in; ``fp32`` where nothing was searched."""
        return coarsest(engine.precision for engine in self._engines.values())

    @property
    def engine_details(self) -> dict[str, list[str]]:
        """The form in which the network is searched, and why it is no faster one."""
        engine = self.engine
        recorded = self._recorded(engine.forward, engine.precision, compiled=engine.compiled)
        found = {"engine": [*engine.used], "engine_notes": [*engine.notes, *recorded.notes]}
        return {key: words for key, words in found.items() if words}

    @cached_property
    def nudge(self) -> float:
        """How far inside the box attacks take gradients: :func:`robaudit.engine.edge_nudge`."""
        with frozen(self.model):
            images = self.splits[self.main].x[:1]
            return edge_nudge(self.model, images.to(device_of(self.model)))

    def runner(
        self,
        forward: Forward | None = None,
        precision: Precision = "fp32",
        *,
        compiled: bool = False,
    ) -> Runner:
        """Runs the network, or ``forward`` in its place; recorded passes are shared."""
        device = device_of(self.model)
        network = self._recorded(forward or self.model, precision, compiled=compiled)
        made = Runner(network, device, self.batch_size)
        self._runners.append(made)
        return made

    def _recorded(self, forward: Forward, precision: Precision, *, compiled: bool) -> Captured:
        key = id(forward), precision, compiled  # the network is kept, and its id with it
        if key not in self._captured:
            device = device_of(self.model)
            self._captured[key] = Captured(forward, device, precision, compiled=compiled)
        return self._captured[key]

    def searcher(self, plain: bool = False) -> Runner:
        """Runs the network through the engine; ``plain`` runs the original network in float32."""
        if plain:
            return self.runner()
        found = self.engine
        return self.runner(found.forward, found.precision, compiled=found.compiled)

    def _pgd_searcher(self, model: nn.Module) -> Runner | None:
        """Runs a network for the search of PGD; ``None`` where that is done in float32.

        Then the network is searched as it stands, so that losses do not depend on the engine.
        """
        if not self._tries_faster:
            return None
        found = self._prepared(model)
        if found.precision == "fp32":
            return None
        return self.runner(found.forward, found.precision, compiled=found.compiled)

    @property
    def _tries_faster(self) -> bool:
        """Whether searches may be in another arithmetic than float32."""
        return coarsest(candidates(self.precision, device_of(self.model))) != "fp32"

    def searched_details(self, attacked: AttackResult) -> dict[str, Any]:
        """The arithmetic of a PGD, the form that was searched in it, or why it is float32."""
        engine = self.engine_details if self._tries_faster else {}
        if attacked.searched == "fp32":
            engine.pop("engine", None)
        return {"searched_in": attacked.searched, **engine}

    def running_notes(self) -> list[str]:
        """Warnings: why several devices were not used, and where memory ran out."""
        found = list(dict.fromkeys(note for runner in self._runners for note in runner.notes))
        tried = [size for runner in self._runners for size in runner.backoffs]
        if not tried:
            return found
        return [
            *found,
            f"memory ran out in passes of {max(tried)} images; they went on with "
            f"{min(runner.batch for runner in self._runners)}, which can change the last digits, "
            "not the method: give --batch-size that to begin with",
        ]

    def keeping(self, name: str, *settings: object) -> Cache:
        """A cache for the pieces of one attack with these settings."""
        if self.described:
            settings = (*settings, self.described)
        digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:10]
        return lambda key, compute: self.cache(f"{name}-{digest}-{key}", compute)

    def adversarial(
        self,
        split: str,
        settings: Pgd,
        n: int | None = None,
        mode: Literal["loss", "accuracy"] = "loss",
    ) -> AttackResult:
        """PGD examples for the first ``n`` of a split, in loss mode made at most once.

        An example's result does not depend on which others are attacked with it, so the first
        examples of an earlier result are what attacking them alone would give.
        """
        examples = self.splits[split]
        n = len(examples) if n is None else min(n, len(examples))
        if mode == "accuracy":
            return self._climb(self.model, split, settings, n, self.threat, mode=mode)
        whole = self._made.get((split, settings))
        if whole is None or len(whole.x) < n:
            whole = self._climb(self.model, split, settings, n, self.threat)
            self._made[split, settings] = whole
        if len(whole.x) == n:
            return whole
        rows = ("x", "loss", "robust", "correct", "broken_x", "stuck", "reached")
        return dataclasses.replace(whole, **{name: getattr(whole, name)[:n] for name in rows})

    def made(self, split: str, settings: Pgd) -> AttackResult | None:
        """The PGD examples of a split, if they have been made in loss mode."""
        return self._made.get((split, settings))

    def within(self, settings: Pgd) -> list[Radius]:
        """Which audited examples withstand PGD within each radius; empty without ``radii``.

        The smaller radii are attacked in ascending order, each starting from the result within
        the radius before. At the threat model's own radius it is the plain run, less what was
        broken within a smaller one.
        """
        examples = self.splits[self.main]
        last: AttackResult | None = None
        found: list[Radius] = []
        for threat in self.smaller:
            start = None
            if last is not None:
                start = grown(last.x, examples.x, found[-1].eps, threat.eps)
            made = self._climb(self.model, self.main, settings, len(examples), threat, start)
            last = made if last is None else worse(last, made)
            found.append(Radius(threat.eps, last.robust, last.loss))
        if last is not None:
            whole = worse(last, self.adversarial(self.main, settings))
            found.append(Radius(self.threat.eps, whole.robust, whole.loss))
        return found

    def transferred(self, settings: Pgd) -> AttackResult:
        """PGD examples of the surrogate on the audited split."""
        assert self.surrogate is not None
        return self._climb(
            self.surrogate, self.main, settings, len(self.splits[self.main]), self.threat
        )

    def _climb(
        self,
        model: nn.Module,
        split: str,
        settings: Pgd,
        n: int,
        threat: ThreatModel,
        start: Tensor | None = None,
        mode: Literal["loss", "accuracy"] = "loss",
    ) -> AttackResult:
        examples = self.splits[split]
        where = f" within {threat.eps:.3g}" if self.radii else ""
        others = "" if model is self.model else " of the surrogate"
        kept: tuple[object, ...] = (settings, examples.sha256, n, threat.eps)
        if start is not None:
            kept = (*kept, self.radii)
        if mode == "accuracy":
            kept = (*kept, mode, examples.index.tolist())
        if model is not self.model:
            kept = (*kept, weights_digest(model))
        searcher = self._pgd_searcher(model)
        if searcher is not None:
            kept = (*kept, searcher.network.precision)
        with (
            self.watch(f"{settings.title}{others} on {n} {split} examples{where}") as p,
            frozen(model),
        ):
            return pgd(
                self.runner(model),
                examples.x[:n],
                examples.y[:n],
                threat,
                steps=settings.steps,
                restarts=settings.restarts,
                step_size=settings.step_over_eps * threat.eps,
                loss=settings.loss,
                mode=mode,
                last_iterate=settings.last_iterate,
                seed=self.seed,
                index=examples.index[:n],
                start=start,
                searcher=searcher,
                cache=self.keeping("pgd" if model is self.model else "transfer", *kept),
                progress=self.work.through(n * settings.passes_each, p),
            )

    def keep(self, split: str, name: str, values: Tensor) -> None:
        """Cache a per-example outcome."""
        self.outcomes[f"{split}.{name}"] = values.detach().cpu()

    def y(self, split: str, n: int) -> Tensor:
        return self.splits[split].y[:n]

    def index(self, split: str, n: int) -> Tensor:
        return self.splits[split].index[:n]

    def groups(self, split: str, n: int) -> Tensor | None:
        """Groups of the first examples, one group an image; ``None`` if no image is repeated."""
        groups = self.splits[split].groups
        return None if groups is None or len(torch.unique(groups)) == len(groups) else groups[:n]

    def sync(self) -> None:
        """Wait for the device, so that measured seconds include its work."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
