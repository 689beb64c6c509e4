"""What ``robaudit landscape`` does: load, cut, hand to the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robaudit.cli.display import Screen
from robaudit.cli.landscape_options import Cut
from robaudit.cli.messages import say, say_of
from robaudit.cli.options import Settings
from robaudit.errors import RobauditError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.checkpoints import Classifier
    from robaudit.flatness import Adversary, Slice, Surface
    from robaudit.flatness.weights import Weights
    from robaudit.report.landscape import Landscape, Losses, Model
    from robaudit.session import Session
    from robaudit.types import Examples, Progress, ThreatModel

_EXAMPLES = 256


def cut_landscape(
    checkpoints: Sequence[str], cut: Cut, pgd: tuple[Any, ...], settings: Settings
) -> tuple[Landscape, int]:
    """The landscape asked for, and the exit code: of the first checkpoint that is not in it.

    Args:
        pgd: the fields of :class:`robaudit.flatness.Adversary`.
    """
    from robaudit.audit.failures import not_measured
    from robaudit.flatness import Adversary

    through = cut.through(len(checkpoints))
    if through in ("images", "path"):
        cut = cut.changed(dimensions=2)
    elif through == "checkpoints":
        cut = cut.changed(dimensions=len(checkpoints) - 1)
    work = _Work.of(checkpoints, cut, Adversary(*pgd), settings)
    with not_measured():
        if through == "images":
            return _around_images(checkpoints[0], work), 0
        if through == "path":
            return _path(checkpoints, work), 0
        if through == "checkpoints":
            return _through(checkpoints, work), 0
        if cut.dimensions == 2:
            return _plane(checkpoints[0], work), 0
        return _lines(checkpoints, work)


@dataclass(frozen=True)
class _Work:
    cut: Cut
    session: Session
    threat: ThreatModel
    adversary: Adversary
    shared: dict[str, Any]  # what every measurement of losses is told
    direction: dict[str, Any]  # what every search for a direction is told
    assumed: list[str] = field(default_factory=list)  # checkpoints that were opened by a guess

    @classmethod
    def of(
        cls, checkpoints: Sequence[str], cut: Cut, adversary: Adversary, settings: Settings
    ) -> _Work:
        from robaudit.flatness import places_between, symmetric_places

        if cut.through(len(checkpoints)) in ("checkpoints", "path"):
            places_between(cut.places)
        else:
            symmetric_places(cut.places, cut.usual_reach if cut.reach is None else cut.reach)
        session = _begun(checkpoints, cut, settings)
        assert session.threat is not None
        common: dict[str, Any] = {
            "index": session.examples.index,
            "batch_size": settings.batch_size,
        }
        if settings.precision != "float64":  # whose searches are those of auto
            common["precision"] = settings.precision
        losses = {**common, "adversary": adversary}
        direction = {
            **common,
            "by": cut.normalize_by,
            "seed": settings.seed,
            "steps": adversary.steps,
            "step_size": adversary.step_size,
        }
        return cls(cut, session, session.threat, adversary, losses, direction)

    @property
    def examples(self) -> Examples:
        return self.session.examples

    @property
    def seed(self) -> int:
        return self.session.request.seed

    def load(self, checkpoint: str) -> Classifier:
        model = self.session.open(checkpoint)
        origin = model.origin
        if "assumed" in (origin.architecture_known, origin.normalization_known):
            self.assumed.append(checkpoint)
        return model

    @contextmanager
    def watch(self, checkpoint: str, label: str) -> Iterator[Progress | None]:
        """One bar for one piece of work."""
        with self.session.display.bars(Path(checkpoint).stem) as watch, watch(label) as progress:
            yield progress

    @property
    def data(self) -> tuple[Tensor, Tensor, ThreatModel]:
        return self.examples.x, self.examples.y, self.threat

    def search(self, model: Classifier, checkpoint: str, which: int) -> Weights:
        """The ``which``-th direction of the kind asked for."""
        from robaudit.flatness import adversarial_direction, random_direction

        if self.cut.directions == "random":
            return random_direction(model, by=self.cut.normalize_by, seed=self.seed, which=which)
        with self.watch(checkpoint, f"adversarial direction {which + 1}") as progress:
            return adversarial_direction(
                model, *self.data, which=which, progress=progress, **self.direction
            )

    def described(self, kind: str) -> dict[str, Any]:
        """The settings of a result."""
        import robaudit
        from robaudit.types import radius

        cut, examples = self.cut, self.examples
        many = f"{len(examples)} {examples.split} examples of {examples.name}"
        if cut.example is not None:
            many = f"{examples.split} example {cut.example} of {examples.name}"
        attack = f"; PGD-{self.adversary.steps}, {self.threat.norm} {radius(self.threat.eps)}"
        around = {
            "directions": cut.directions,
            "normalize_by": cut.normalize_by,
            "repeats": cut.repeats if cut.dimensions == 1 else 1,
        }
        pgd = {
            "steps": self.adversary.steps,
            "step_size": self.adversary.step_size or self.threat.eps / 4,
            "restarts": self.adversary.restarts,
            "fixed_examples": self.adversary.fixed,
        }
        images = kind == "input"
        return {
            "robaudit": robaudit.__version__,
            "landscape": kind,
            "title": many if images else many + attack,
            "space": "input" if images else "weights",
            **({"assumed": list(self.assumed)} if self.assumed else {}),
            **(around if kind in ("lines", "plane") else {}),
            "data": {
                "name": examples.name,
                "split": examples.split,
                "n": len(examples),
                "sha256": examples.sha256,
                **({} if cut.example is None else {"example": cut.example}),
            },
            "threat": {"norm": self.threat.norm, "eps": self.threat.eps},
            **({} if images else {"attack": pgd}),
            "seed": self.seed,
        }


def _lines(checkpoints: Sequence[str], work: _Work) -> tuple[Landscape, int]:
    from robaudit.audit.failures import not_measured
    from robaudit.flatness import symmetric_places
    from robaudit.report.landscape import Landscape

    cut = work.cut
    s = symmetric_places(cut.places, cut.reach or cut.usual_reach)
    models, code = [], 0
    for checkpoint in checkpoints:
        try:
            with not_measured():
                models.append(_line(checkpoint, s, work))
        except RobauditError as error:
            if checkpoint == checkpoints[-1] and not models:
                raise
            say_of(checkpoint, error)
            code = code or error.exit_code
    label = f"s, relative change of the weights ({cut.directions})"
    return Landscape(work.described("lines"), (label,), (s.numpy(),), tuple(models)), code


def _line(checkpoint: str, s: Tensor, work: _Work) -> Model:
    from robaudit.flatness import around, landscape

    model, cut = work.load(checkpoint), work.cut
    families = [
        around(model, work.search(model, checkpoint, which)) for which in range(cut.repeats)
    ]
    with work.watch(checkpoint, f"loss at {len(families) * cut.places} places") as progress:
        found = landscape(model, families, s, *work.data, progress=progress, **work.shared)
    return _line_model(checkpoint, found)


def _plane(checkpoint: str, work: _Work) -> Landscape:
    from robaudit.flatness import around, landscape_plane, random_direction, symmetric_places
    from robaudit.report.landscape import Landscape

    cut = work.cut
    s = symmetric_places(cut.places, cut.reach or cut.usual_reach)
    model = work.load(checkpoint)
    first = work.search(model, checkpoint, 0)
    second = random_direction(model, by=cut.normalize_by, seed=work.seed, which=1)
    with work.watch(checkpoint, f"loss at {cut.places**2} places") as progress:
        found = landscape_plane(
            model, around(model, first, second), s, s, *work.data, progress=progress, **work.shared
        )
    labels = (f"s ({cut.directions} direction)", "t (random direction)")
    both = (s.numpy(), s.numpy())
    return Landscape(work.described("plane"), labels, both, (_plane_model(checkpoint, found),))


def _through(checkpoints: Sequence[str], work: _Work) -> Landscape:
    from robaudit.flatness import between, landscape, landscape_plane, places_between
    from robaudit.report.landscape import Landscape
    from robaudit.report.text import model_names

    s = places_between(work.cut.places)
    models = _of_one_architecture(checkpoints, work)
    family = between(*models)
    names = model_names(list(checkpoints))
    together = " - ".join(checkpoints)
    about = {**work.described("between"), "checkpoints": list(checkpoints)}
    if len(models) == 2:
        with work.watch(checkpoints[0], f"loss at {len(s)} places") as progress:
            slice_ = landscape(models[0], [family], s, *work.data, progress=progress, **work.shared)
        ends = tuple(zip(((0.0,), (1.0,)), checkpoints, strict=True))
        label = f"s, from {names[0]} to {names[1]}"
        one = _line_model(together, slice_)
        return Landscape(about, (label,), (s.numpy(),), (one,), ends)
    with work.watch(checkpoints[0], f"loss at {len(s) ** 2} places") as progress:
        found = landscape_plane(
            models[0], family, s, s, *work.data, progress=progress, **work.shared
        )
    corners = tuple(zip(((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), checkpoints, strict=True))
    labels = (f"s, from {names[0]} to {names[1]}", f"t, from {names[0]} to {names[2]}")
    whole = _plane_model(together, found)
    return Landscape(about, labels, (s.numpy(), s.numpy()), (whole,), corners)


def _of_one_architecture(checkpoints: Sequence[str], work: _Work) -> list[Classifier]:
    models = [work.load(checkpoint) for checkpoint in checkpoints]
    kinds = {model.origin.architecture for model in models}
    if len(kinds) > 1:
        raise UsageError(
            f"there is no line between different architectures: {', '.join(sorted(kinds))}",
            "Give checkpoints of one architecture, or --compare.",
        )
    return models


def _path(checkpoints: Sequence[str], work: _Work) -> Landscape:
    from robaudit.flatness import landscape_plane, places_along, trajectory
    from robaudit.report.curve_axis import axis_of, shown_place
    from robaudit.report.landscape import Landscape, PathPoint

    models = _of_one_architecture(checkpoints, work)
    axis = axis_of(checkpoints, [model.origin.epoch for model in models])
    order = sorted(range(len(models)), key=lambda at: axis.places[at])
    sources = [checkpoints[at] for at in order]
    found = trajectory([models[at] for at in order])
    s, t = (places_along(values, work.cut.places) for values in found.places.T)
    with work.watch(sources[-1], f"loss at {len(s) * len(t)} places") as progress:
        plane = landscape_plane(
            models[order[-1]], found.family, s, t, *work.data, progress=progress, **work.shared
        )
    labels = tuple(
        f"{name}, component {at} ({100 * share:.0f} % of the path)"
        for name, at, share in zip("st", (1, 2), found.shares, strict=True)
    )
    path = tuple(
        PathPoint(f"{axis.name} {shown_place(axis.places[at])}", off)
        for at, off in zip(order, found.off_plane.tolist(), strict=True)
    )
    places = [(float(a), float(b)) for a, b in found.places.tolist()]
    about = {
        **work.described("trajectory"),
        "checkpoints": sources,
        "shares": list(found.shares),
        "path": [
            {"source": source, "s": a, "t": b, "label": point.label, "off_plane": point.off_plane}
            for source, (a, b), point in zip(sources, places, path, strict=True)
        ],
    }
    return Landscape(
        about,
        labels,
        (s.numpy(), t.numpy()),
        (_plane_model(sources[-1], plane),),
        tuple(zip(places, sources, strict=True)),
        path,
    )


def _around_images(checkpoint: str, work: _Work) -> Landscape:
    from robaudit.flatness import input_surface, symmetric_places
    from robaudit.flatness.input_surface import usual_reach
    from robaudit.report.landscape import Landscape

    x, y = work.examples.x, work.examples.y
    s = symmetric_places(work.cut.places, work.cut.reach or usual_reach(work.threat, x[0].numel()))
    model = work.load(checkpoint)
    with work.watch(checkpoint, f"loss at {len(s) ** 2} places") as progress:
        found = input_surface(
            model,
            x,
            y,
            s,
            s,
            seed=work.seed,
            index=work.examples.index,
            batch_size=work.shared["batch_size"],
            progress=progress,
        )
    labels = ("s, along the gradient's signs (pixel value)", "t, random signs (pixel value)")
    both = (s.numpy(), s.numpy())
    return Landscape(work.described("input"), labels, both, (_plane_model(checkpoint, found),))


def _line_model(source: str, found: Slice) -> Model:
    from robaudit.flatness import mean_and_error
    from robaudit.report.landscape import Losses, Model

    def losses(rows: Tensor) -> Losses:
        # The directions are those of the picture: the error is over examples alone.
        mean, error = mean_and_error(rows.mean(0))
        return Losses(mean.numpy(), error.numpy(), rows.mean(2).numpy())

    _say_all(found.notes)
    return Model(source, {"clean": losses(found.clean), "robust": losses(found.robust)})


def _plane_model(source: str, found: Surface) -> Model:
    from robaudit.flatness import mean_and_error
    from robaudit.report.landscape import Losses, Model

    if found.robust is None:
        kinds = {"loss": found.clean}
    else:
        kinds = {"clean": found.clean, "robust": found.robust}
    _say_all(found.notes)
    return Model(
        source,
        {
            kind: Losses(*(part.numpy() for part in mean_and_error(rows)))
            for kind, rows in kinds.items()
        },
    )


def _say_all(notes: Sequence[str]) -> None:
    for note in notes:
        say(note)


def _begun(checkpoints: Sequence[str], cut: Cut, settings: Settings) -> Session:
    """A session with the examples asked for, or with the one image."""
    from robaudit.session import Session

    at_most, screen = _EXAMPLES, Screen(settings.quiet)
    if cut.example is not None:
        at_most, settings = cut.example + 1, settings.changed(sample=False)
    session = Session.begin(checkpoints, settings, at_most=at_most, display=screen)
    if cut.example is None:
        return session
    found = session.examples
    at = (found.index == cut.example).nonzero().flatten()
    if len(at) == 0:
        raise UsageError(
            f"--example {cut.example}: the {found.split} split of {found.name} has "
            f"{len(found)} examples",
            "They are counted from 0.",
        )
    return replace(session, examples=found.taken(at))
