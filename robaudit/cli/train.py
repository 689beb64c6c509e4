"""``robaudit train``: a recipe's run, from its beginning or from where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import Field

from robaudit.cli.completion import recipes
from robaudit.cli.display import Screen
from robaudit.cli.messages import say
from robaudit.cli.options import Settings, with_settings
from robaudit.errors import UsageError
from robaudit.request import Count, Spec
from robaudit.types import Norm

if TYPE_CHECKING:
    from robaudit.cli.train_folder import TrainFolder
    from robaudit.training.fitting import Epoch
    from robaudit.training.network import Fresh
    from robaudit.training.preparing import TrainingData
    from robaudit.training.recipe import Recipe
    from robaudit.types import Examples, ThreatModel

_USUAL_ARCH = {"digits": "digits_resnet"}
_OMITTED = (
    "member",
    "weights",
    "model_dir",
    "sha256",
    "trust_pickle",
    "split",
    "gap",
    "train_data",
    "batch_size",
    "precision",
    "seed",
    "state",
    "norm",
    "format",
    "json",
    "samples",
    "straight_through",
)


class Training(Spec):
    """How a recipe is run."""

    epochs: Count | None = Field(default=None, description="In place of the recipe's.")
    seed: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="Of weights, order and every draw, in place of the recipe's."
    )
    norm: Norm | None = Field(default=None, description="In place of the recipe's.")
    taylor: Literal["exact", "last-layer"] | None = Field(
        default=None,
        description="The Taylor terms of the paper, or what its public code computes; in place of "
        "the recipe's.",
    )
    every: Count = Field(
        default=1, description="Write a checkpoint every so many epochs, and the last."
    )
    track: str = Field(
        default="",
        description="Measure these at every checkpoint, on both splits, into metrics.csv.",
    )
    track_n: Count = Field(
        default=256, description="Images of each split to measure on: the first ones."
    )
    precision: Literal["auto", "fp32", "tf32", "bf16"] = Field(
        default="fp32",
        description="Arithmetic of training; tf32 and bf16 are for GPUs. auto: the fastest of the "
        "GPU, on a CPU fp32.",
    )
    compile: bool = Field(
        default=False, description="Compile the network first: worth it for long runs on a GPU."
    )


@with_settings(omit=frozenset(_OMITTED), data="digits")
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            autocompletion=recipes,
            show_default=False,
            help="A TOML file, or the name of a preset such as digits-at or trades-awp.",
        ),
    ],
    settings: Settings,
    how: Annotated[Training, None],
) -> None:
    """Train a network by one of the papers' methods; every epoch leaves a checkpoint.

    The folder --out has checkpoints/epoch_NNN.safetensors, which every other command opens as they
    are, and metrics.csv; best.pt and last.pt, too, where the recipe holds examples out. The same
    command goes on where it stopped; on a CPU it ends with the same weights bit for bit.
    """
    from robaudit.cli.train_data import extra_examples, tracked_splits, training_examples
    from robaudit.cli.train_folder import train_folder
    from robaudit.cli.train_tracking import parse_track
    from robaudit.engine import resolve_device
    from robaudit.training.network import begin_with, fresh_classifier
    from robaudit.training.parts import augmentation_of, rotations_of
    from robaudit.training.preparing import prepared
    from robaudit.training.recipe import read_recipe

    if settings.out is None:
        raise UsageError("no folder to train in", "Give one: --out DIR.")
    measures = parse_track(how.track)
    found = read_recipe(recipe, how.taylor)
    found = found.changed(epochs=how.epochs or found.epochs)
    found = found if how.seed is None else found.changed(seed=how.seed)
    threat = _threat(found, settings, how.norm)
    arch = settings.arch or _USUAL_ARCH.get(settings.data)
    if arch is None:
        raise UsageError(
            f"no network is named for --data {settings.data}",
            'Name one: --arch "preact_resnet(depth=18)", or file.py:factory.',
        )
    examples = training_examples(settings, found.seed)
    augmentation_of(found).check(tuple(examples.x.shape[1:]))
    fresh = fresh_classifier(arch, settings.normalize, examples, found.seed)
    rotations_of(found, fresh.model, examples.x[:1])  # refused before the folder is made
    start = None if found.start is None else begin_with(fresh, found.start, arch)
    extra = None if found.extra_data is None else extra_examples(found.extra_data, examples)
    how = how.changed(precision=_arithmetic(how.precision, settings.device))
    folder = train_folder(
        settings.out,
        {
            "recipe": found.model_dump(mode="json"),
            "data": {"name": settings.data, "n": len(examples), "sha256": examples.sha256},
            "threat": {"norm": threat.norm, "eps": threat.eps},
            "architecture": fresh.architecture or arch,
            "normalization": fresh.model.origin.normalization,
            "precision": how.precision,
            **({"compiled": True} if how.compile else {}),
            **({} if found.start is None else {"start": start}),
            **({} if extra is None else {"extra": {"n": len(extra), "sha256": extra.sha256}}),
            "track": [*measures, how.track_n] if measures else [],
            "every": how.every,
        },
    )
    data = prepared(examples, found, resolve_device(settings.device), extra)
    splits = tracked_splits(examples, data.rows, settings, how.track_n) if measures else []
    _run(found, threat, fresh, data, folder, settings, how, splits)


def _run(
    recipe: Recipe,
    threat: ThreatModel,
    fresh: Fresh,
    data: TrainingData,
    folder: TrainFolder,
    settings: Settings,
    how: Training,
    splits: Sequence[Examples],
) -> None:
    import torch

    from robaudit.cli.train_metrics import BEST, row_of
    from robaudit.cli.train_tracking import parse_track, tracked
    from robaudit.training import DivergedError, averaged_state
    from robaudit.training.fitting import fit
    from robaudit.training.origins import AVERAGED, BEST_FILE, CHECKPOINTS, LAST

    measures = parse_track(how.track)
    device = data.x.device
    model = fresh.model.to(device)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    network = None
    if how.compile:
        from robaudit.training.compiled import compiled

        network, why = compiled(model, data.x, recipe)
        if why:
            say(f"not compiled: {why}")
    said = _metadata(recipe, threat, fresh, settings)
    name = settings.out.name if settings.out else ""
    at = 0 if folder.state is None else int(folder.state["epoch"])
    if at and not settings.quiet:
        then = "nothing is left to do" if at == recipe.epochs else "going on"
        say(f"{folder.path}: epoch {at} of {recipe.epochs} is done; {then}")

    def keep(epoch: Epoch) -> None:
        nonlocal at
        row = row_of(epoch, device)
        if recipe.wci is not None:
            row["wci.control"] = epoch.wci
        if epoch.number % how.every == 0 or epoch.number == recipe.epochs:
            network = model.network.state_dict()
            folder.save(CHECKPOINTS, epoch.number, network, said)
            if epoch.average:
                mean = averaged_state(model, epoch.average, data.x, recipe.batch_size)
                inner = {k.removeprefix("network."): value for k, value in mean.items()}
                folder.save(AVERAGED, epoch.number, inner, said)
            row |= tracked(model, splits, threat, measures, recipe.seed)
        found = epoch.validation
        if found is not None:
            folder.keep(LAST, epoch.number, model.network.state_dict(), said)
            if folder.is_best(row, BEST):
                folder.keep(BEST_FILE, epoch.number, model.network.state_dict(), said)
        folder.commit(epoch.state, row)
        at = epoch.number
        if not settings.quiet:
            say(
                f"epoch {epoch.number}/{recipe.epochs}: loss {epoch.loss:.4f}, "
                f"learning rate {epoch.learning_rate:.3g}, {row['seconds']:.1f} s"
                + ("" if found is None else f", {found.robust:.1%} robust of those held out")
            )

    try:
        with Screen(settings.quiet).bars(name) as watch, watch("training") as bar:
            fit(
                model,
                data.x,
                data.y,
                recipe,
                threat,
                held=data.held,
                extra=data.extra,
                state=folder.state,
                precision="fp32" if how.precision == "auto" else how.precision,
                network=network,
                on_epoch=keep,
                on_step=bar,
            )
    except KeyboardInterrupt:
        say(
            f"interrupted; epoch {at} of {recipe.epochs} is done",
            "The same command goes on from there.",
        )
        raise typer.Exit(130) from None
    except OSError as error:
        raise UsageError(f"--out {folder.path}: {error.strerror or error}") from None
    except DivergedError as error:
        good = folder.checkpoints()
        error.message = f"{error.message} of epoch {at + 1}: training stopped"
        error.advice = (
            f"The last good checkpoint is {good[-1]}; take a lower learning_rate, or clip_norm."
            if good
            else "Take a lower learning_rate, or clip_norm."
        )
        raise
    typer.echo(str(folder.checkpoints()[-1]))


def _arithmetic(asked: str, device: str) -> str:
    """The arithmetic of ``auto``: the fastest one that a GPU has instructions for."""
    from robaudit.engine import resolve_device
    from robaudit.engine.precision import candidates

    if asked != "auto":
        return asked
    found = resolve_device(device)
    return candidates("auto", found)[0] if found.type == "cuda" else "fp32"


def _threat(recipe: Recipe, settings: Settings, norm: Norm | None) -> ThreatModel:
    """The command line's threat model, else the recipe's, else the data's usual one."""
    from robaudit.session import threat_of

    own = settings.changed(
        norm=norm if norm is not None else recipe.threat.norm,
        eps=settings.eps or recipe.threat.eps,
        force_eps=settings.force_eps or recipe.threat.force_eps,
        split="train",
    )
    return threat_of(own)


def _metadata(
    recipe: Recipe, threat: ThreatModel, fresh: Fresh, settings: Settings
) -> dict[str, str]:
    parts = [recipe.objective.upper() if recipe.objective != "standard" else "standard"]
    tables = ("trh", "taylor", "awp", "rotations", "swa", "wci")
    parts += [name.upper() for name in tables if getattr(recipe, name) is not None]
    how = f"{' + '.join(parts)}, {threat.norm} {threat.eps:.4g}, seed {recipe.seed}"
    said = {
        "robaudit.normalization": fresh.model.origin.normalization,
        "robaudit.trained": how,
        "robaudit.data": settings.data,
    }
    return said | ({"robaudit.architecture": fresh.architecture} if fresh.architecture else {})
