"""``robaudit train``: a recipe's run, from its beginning or from where it stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import Field

from robaudit.cli.completion import recipes
from robaudit.cli.display import Screen
from robaudit.cli.messages import say
from robaudit.cli.options import Settings, with_settings
from robaudit.errors import DataError, UsageError
from robaudit.request import Count, Spec
from robaudit.types import Norm

if TYPE_CHECKING:
    import torch

    from robaudit.cli.train_folder import TrainFolder
    from robaudit.training.fitting import Epoch
    from robaudit.training.network import Fresh
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
    are, and metrics.csv. The same command goes on where it stopped; on a CPU it ends with the same
    weights bit for bit.
    """
    from robaudit.cli.train_folder import train_folder
    from robaudit.cli.train_tracking import parse_track
    from robaudit.training.network import fresh_classifier
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
    examples = _training(settings, found.seed)
    fresh = fresh_classifier(arch, settings.normalize, examples, found.seed)
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
            "track": [*measures, how.track_n] if measures else [],
            "every": how.every,
        },
    )
    splits = _tracked_splits(examples, settings, how.track_n) if measures else []
    _run(found, threat, fresh, examples, folder, settings, how, splits)


def _run(
    recipe: Recipe,
    threat: ThreatModel,
    fresh: Fresh,
    examples: Examples,
    folder: TrainFolder,
    settings: Settings,
    how: Training,
    splits: Sequence[Examples],
) -> None:
    import torch

    from robaudit.cli.train_tracking import parse_track, tracked
    from robaudit.engine import resolve_device
    from robaudit.training import DivergedError, averaged_state
    from robaudit.training.fitting import fit
    from robaudit.training.origins import AVERAGED, CHECKPOINTS
    from robaudit.training.preparing import training_labels

    measures = parse_track(how.track)
    device = resolve_device(settings.device)
    model = fresh.model.to(device)
    if device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)
    x, y = examples.x.to(device), training_labels(examples, recipe).to(device)
    network = None
    if how.compile:
        from robaudit.training.compiled import compiled

        network, why = compiled(model, x, recipe)
        if why:
            say(f"not compiled: {why}")
    said = _metadata(recipe, threat, fresh, settings)
    name, begun = settings.out.name if settings.out else "", time.monotonic()
    at = 0 if folder.state is None else int(folder.state["epoch"])
    if at and not settings.quiet:
        then = "nothing is left to do" if at == recipe.epochs else "going on"
        say(f"{folder.path}: epoch {at} of {recipe.epochs} is done; {then}")

    def keep(epoch: Epoch) -> None:
        nonlocal at, begun
        row: dict[str, float | None] = {
            "epoch": epoch.number,
            "learning_rate": epoch.learning_rate,
            "loss": epoch.loss,
            "seconds": round(time.monotonic() - begun, 3),
        }
        row |= _use_of(device, len(x) / max(time.monotonic() - begun, 1e-9))
        if recipe.wci is not None:
            row["wci.control"] = epoch.wci
        if epoch.number % how.every == 0 or epoch.number == recipe.epochs:
            network = model.network.state_dict()
            folder.save(CHECKPOINTS, epoch.number, network, said)
            if epoch.average:
                mean = averaged_state(model, epoch.average, x, recipe.batch_size)
                inner = {k.removeprefix("network."): value for k, value in mean.items()}
                folder.save(AVERAGED, epoch.number, inner, said)
            row |= tracked(model, splits, threat, measures, recipe.seed)
        folder.commit(epoch.state, row)
        at, begun = epoch.number, time.monotonic()
        if not settings.quiet:
            say(
                f"epoch {epoch.number}/{recipe.epochs}: loss {epoch.loss:.4f}, "
                f"learning rate {epoch.learning_rate:.3g}, {row['seconds']:.1f} s"
            )

    try:
        with Screen(settings.quiet).bars(name) as watch, watch("training") as bar:
            fit(
                model,
                x,
                y,
                recipe,
                threat,
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


def _use_of(device: torch.device, speed: float) -> dict[str, float | None]:
    """Images a second, and on a GPU the most memory that tensors took in an epoch, in GiB."""
    import torch

    found: dict[str, float | None] = {"images_per_second": round(speed, 1)}
    if device.type == "cuda":
        found["peak_memory_gib"] = round(torch.cuda.max_memory_allocated(device) / 2**30, 3)
        torch.cuda.reset_peak_memory_stats(device)
    return found


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
    tables = ("trh", "taylor", "awp", "swa", "wci")
    parts += [name.upper() for name in tables if getattr(recipe, name) is not None]
    how = f"{' + '.join(parts)}, {threat.norm} {threat.eps:.4g}, seed {recipe.seed}"
    said = {
        "robaudit.normalization": fresh.model.origin.normalization,
        "robaudit.trained": how,
        "robaudit.data": settings.data,
    }
    return said | ({"robaudit.architecture": fresh.architecture} if fresh.architecture else {})


def _training(settings: Settings, seed: int) -> Examples:
    """The training split; of a file that has no splits, all of it."""
    from robaudit.data import load_examples
    from robaudit.data.arrayfile import SUFFIXES

    def load(split: str) -> Examples:
        return load_examples(
            settings.data,
            split=split,
            n=settings.n,
            data_dir=settings.data_dir,
            sample_seed=seed if settings.sample else None,
            download=settings.download,
        )

    try:
        return load("train")
    except DataError:
        if not settings.data.lower().endswith(SUFFIXES):
            raise
        return load("test")


def _tracked_splits(train: Examples, settings: Settings, n: int) -> list[Examples]:
    from robaudit.data import load_examples

    where = {"data_dir": settings.data_dir, "download": settings.download}
    parts = []
    try:
        if train.split == "test":
            raise DataError(f"{settings.data} has no test split of its own")
        parts.append(load_examples(settings.data, split="test", at_most=n, **where))  # type: ignore[arg-type]
    except DataError as error:
        if not settings.quiet:
            say(f"tracking the training split only: {error.message}")
    m = min(n, len(train))
    first = {"x": train.x[:m], "y": train.y[:m], "index": train.index[:m], "split": "train"}
    parts.append(replace(train, **first))  # type: ignore[arg-type]
    return parts
