"""Accuracy on corrupted images, and the mean corruption error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robaudit.audit.numbers import LEVEL, estimate
from robaudit.audit.probe import Probe
from robaudit.audit.reference_errors import ALEXNET, ReferenceErrors
from robaudit.datasets import CORRUPTIONS, DATA_SETS, SEVERITIES, is_corrupted
from robaudit.errors import DataError, NotMeasuredError, UsageError
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from robaudit.audit.context import Context
    from robaudit.data.corrupted import Corrupted
    from robaudit.types import Examples, ThreatModel

# Images that are decoded together; a multiple of the engine's tile.
_TOGETHER = 512


@dataclass(frozen=True)
class Corruptions(Probe):
    """Accuracy on the audited test images under common corruptions.

    Attributes:
        data: the corrupted images, as for :func:`robaudit.data.open_corrupted`; those of the
            audited data set if empty.
        folder: where they are; where the audited data are if empty.
        corruptions: those measured; the fifteen if none are named.
        severities: those measured; all five if none are named.
        reference: for the mean corruption error; AlexNet on ImageNet-C if not given.
    """

    name = "corruptions"
    measures = (
        measure(
            "accuracy.corruptions",
            "Accuracy under corruptions{part}",
            basis="clean",
            place=90,
            any_threat=True,
            heading="Corrupt.\nacc. %",
            study="corruption accuracy",
            outcome=True,
            formula="mean over corruptions and severities of the share of examples with "
            "`argmax f(x_cs) = y`",
            error="Clopper-Pearson interval and s.e., all versions of an image being one cluster",
        ),
        measure(
            "corruptions.mce",
            "Mean corruption error{part}",
            section="Accuracy",
            basis="clean",
            place=91,
            ruled=False,
            unit="fraction",
            low=0.0,
            better="lower",
            any_threat=True,
            heading="mCE\n%",
            formula="mean over corruptions of `sum_s E_cs` over the same sum for a reference "
            "model, `E_cs` the error at severity `s`",
            error="s.e. over images, the reference errors taken as exact; t interval",
        ),
    )

    data: str = ""
    folder: str = ""
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = ()
    reference: ReferenceErrors | None = None

    @property
    def expected(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.measures[: 1 + (self.reference is not None)])

    def price(self, n: int, n_train: int) -> int:
        kinds = len(self.corruptions) or len(CORRUPTIONS)
        return n * kinds * (len(self.severities) or len(SEVERITIES))

    def described(self, threat: ThreatModel) -> dict[str, Any]:
        return {}

    def run(self, context: Context) -> list[Measurement]:
        examples = context.splits[context.main]
        try:
            corrupted = self.opened(examples, context.data_dir)
        except (DataError, UsageError) as error:
            said = filter(None, (error.message, error.advice))
            raise NotMeasuredError(". ".join(said)) from error
        right, sha256 = _answers(context, corrupted, examples)
        settings = {
            "corruptions": list(corrupted.corruptions),
            "severities": list(corrupted.severities),
            "data_sha256": sha256,
        }
        if part := _part(corrupted):
            settings["part"] = part
        found = [self._accuracy(context, corrupted, right, settings)]
        reference = self.reference or (ALEXNET if _is_imagenet(corrupted) else None)
        if reference is not None:
            found.append(_mce(context, corrupted, right, reference, settings))
        return found

    def opened(self, examples: Examples, data_dir: Path | None) -> Corrupted:
        """The corrupted images of these examples.

        Args:
            data_dir: where data sets are; ``None`` for the usual places.

        Raises:
            UsageError: an unknown severity.
            DataError: they are nowhere, not whole, or not of the same images.
        """
        import torch

        from robaudit.data.corruptions import open_corrupted

        name = self.data or _set_of(examples)
        place = Path(self.folder) if self.folder else data_dir
        found = open_corrupted(name, place, self.corruptions, self.severities)
        if examples.split != "test":
            raise DataError(f"{found.name} has images of the split test alone")
        whole = examples.population or found.count
        if whole != found.count or tuple(examples.x.shape[1:]) != found.shape:
            raise DataError(
                f"{found.name} has {found.count} images of {_size(found.shape)}, {examples.name} "
                f"{whole} of {_size(tuple(examples.x.shape[1:]))}: they are not the same images"
            )
        apart = found.labels(examples.index.tolist()) != examples.y
        if bool(torch.any(apart)):
            raise DataError(
                f"{found.name} has other labels than {examples.name} for {int(apart.sum())} of "
                f"{len(examples)} images: they are not the same images in the same order"
            )
        return found

    def _accuracy(
        self,
        context: Context,
        corrupted: Corrupted,
        right: NDArray[np.bool_],
        settings: dict[str, Any],
    ) -> Measurement:
        import torch

        from robaudit.statistics import clustered_accuracy, clustered_mean

        n = len(right)
        groups = _groups(context, n)
        for at, name in enumerate(corrupted.corruptions):
            context.keep(context.main, f"corruptions.{name}", torch.from_numpy(right[:, at].copy()))
        shares = right.reshape(n, -1).mean(axis=1, dtype="float64")
        context.keep(context.main, "accuracy.corruptions", torch.from_numpy(shares))
        rows = []
        for at, name in enumerate(corrupted.corruptions):
            own = [
                {"severity": severity, **_share(right[:, at, s : s + 1], groups)}
                for s, severity in enumerate(corrupted.severities)
            ]
            rows.append({"name": name, **_share(right[:, at], groups), "severities": own})
        everyone = groups.repeat(right[0].size)
        left = ", ".join(corrupted.unknown)
        return Measurement(
            name="accuracy.corruptions",
            split=context.main,
            value=float(right.mean(dtype="float64")),
            unit="fraction",
            n=n,
            interval=clustered_accuracy(right.ravel(), everyone, LEVEL),
            standard_error=clustered_mean(right.ravel(), everyone).standard_error,
            settings=settings,
            details={"corruptions": rows},
            warnings=[f"left out of {corrupted.name}: {left}"] if left else [],
        )


def _answers(
    context: Context, corrupted: Corrupted, examples: Examples
) -> tuple[NDArray[np.bool_], str]:
    """``(n, corruptions, severities)`` of correct answers, and a hash of the corrupted images."""
    import hashlib

    import numpy as np

    rows = examples.index.tolist()
    kinds, levels = corrupted.corruptions, corrupted.severities
    right = np.empty((len(rows), len(kinds), len(levels)), dtype=np.bool_)
    digest = hashlib.sha256()
    cache = context.keeping("corruptions", corrupted.name, examples.sha256, rows, kinds)
    total = right.size
    with context.watch(f"{total:,} corrupted images of {corrupted.name}") as progress:
        for c, kind in enumerate(kinds):
            for s, level in enumerate(levels):
                before = (c * len(levels) + s) * len(rows)

                def answered(
                    kind: str = kind, level: int = level, before: int = before
                ) -> dict[str, Any]:
                    def tick(done: int) -> None:
                        if progress is not None:
                            progress(before + done, total)

                    return _answered(context, corrupted, examples, kind, level, tick)

                # Another folder of the same form gives other pieces.
                first = corrupted.images(kind, level, rows[:1]).numpy().tobytes()
                seen = hashlib.sha256(first).hexdigest()[:8]
                piece = cache(f"{c}-{level}-{seen}", answered)
                right[:, c, s] = piece["right"].numpy()
                digest.update(piece["sha256"].numpy().tobytes())
                if progress is not None:
                    progress(before + len(rows), total)
    return right, digest.hexdigest()


def _answered(
    context: Context,
    corrupted: Corrupted,
    examples: Examples,
    kind: str,
    level: int,
    tick: Any,
) -> dict[str, Any]:
    """The correct answers under one corruption at one severity, and the hash of its images."""
    import hashlib

    import numpy as np
    import torch

    from robaudit.engine import frozen
    from robaudit.engine.images import StoredImages

    digest, right = hashlib.sha256(), []
    rows = examples.index.tolist()
    with frozen(context.model):
        runner = context.runner()
        for start in range(0, len(rows), _TOGETHER):
            stored = corrupted.images(kind, level, rows[start : start + _TOGETHER])
            digest.update(stored.numpy().tobytes())
            images = StoredImages(stored.shape, stored.__getitem__)
            logits = runner.logits(images).cpu()
            if not bool(torch.isfinite(logits).all()):
                raise NotMeasuredError(
                    f"the network's logits are not finite under {kind} at severity {level}"
                )
            right.append(logits.argmax(1) == examples.y[start : start + _TOGETHER])
            tick(min(start + _TOGETHER, len(rows)))
    sha256 = torch.from_numpy(np.frombuffer(digest.digest(), dtype=np.uint8).copy())
    return {"right": torch.cat(right), "sha256": sha256}


def _mce(
    context: Context,
    corrupted: Corrupted,
    right: NDArray[np.bool_],
    reference: ReferenceErrors,
    settings: dict[str, Any],
) -> Measurement:
    import numpy as np
    import torch

    from robaudit.statistics import clustered_mean
    from robaudit.statistics.corruption_error import corruption_error

    settings = {**settings, "reference": reference.name}
    errors = reference.means(corrupted.corruptions, corrupted.severities)
    if isinstance(errors, str):
        return Measurement(
            name="corruptions.mce",
            split=context.main,
            status="skipped",
            reason=errors,
            settings=settings,
        )
    settings["reference_errors"] = list(errors)
    found = corruption_error(right, np.asarray(errors))
    context.keep(context.main, "corruptions.mce", torch.from_numpy(found.images))
    n, groups = len(right), _groups(context, len(right))
    whole = clustered_mean(found.images, groups)
    single = zip(corrupted.corruptions, found.single.tolist(), strict=True)
    return estimate(
        "corruptions.mce",
        context.main,
        whole.value,
        whole.standard_error,
        degrees=max(1, len(np.unique(groups)) - 1),
        n=n,
        unit="fraction",
        settings=settings,
        details={"corruptions": [{"name": name, "error": error} for name, error in single]},
    )


def _share(right: NDArray[np.bool_], groups: NDArray[np.int64]) -> dict[str, float]:
    """The share of correct answers of ``(n, versions)``, and its interval."""
    from robaudit.statistics import clustered_accuracy

    interval = clustered_accuracy(right.ravel(), groups.repeat(right.shape[1]), LEVEL)
    value = float(right.mean(dtype="float64"))
    return {"accuracy": value, "low": interval.low, "high": interval.high}


def _groups(context: Context, n: int) -> NDArray[np.int64]:
    """A number for each example, equal where the clean set itself repeats an image."""
    import numpy as np

    groups = context.groups(context.main, n)
    return np.arange(n) if groups is None else groups.numpy().astype(np.int64)


def _part(corrupted: Corrupted) -> str:
    """What of the whole was measured, as the end of the measure's name; ``""`` for all of it."""
    kinds, levels = corrupted.corruptions, corrupted.severities
    said = [] if kinds == CORRUPTIONS else [_these(kinds)]
    if levels != SEVERITIES:
        said.append(f"severity {', '.join(map(str, levels))}")
    return f": {'; '.join(said)}" if said else ""


def _these(kinds: tuple[str, ...]) -> str:
    return ", ".join(kinds) if len(kinds) <= 3 else f"{len(kinds)} chosen"


def _set_of(examples: Examples) -> str:
    """The name by which the corrupted images of these examples are found."""
    if examples.name in DATA_SETS or is_corrupted(examples.name):
        return examples.name
    if examples.classes == DATA_SETS["imagenet"].classes:
        return "imagenet"
    return Path(examples.name).stem


def _is_imagenet(corrupted: Corrupted) -> bool:
    known = DATA_SETS["imagenet"]
    own = corrupted.classes == known.classes and corrupted.shape == known.image
    return own and set(corrupted.corruptions) <= set(CORRUPTIONS)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
