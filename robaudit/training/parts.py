"""The objects that a recipe names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

from robaudit.training.augment import Augmentation
from robaudit.training.autoaugment import AutoAugment
from robaudit.training.awp import Awp
from robaudit.training.entropy_sgd import EntropySGD
from robaudit.training.method import Method
from robaudit.training.mixup import Mixup
from robaudit.training.objectives import Alp, At, Mart, Objective, Standard, Trades
from robaudit.training.recipe_tables import EntropyTable
from robaudit.training.rotations import Rotations
from robaudit.training.schedules import constant, cosine, cyclic, piecewise, piecewise_zoom
from robaudit.training.taylor import Taylor
from robaudit.training.trh import TrH
from robaudit.training.wci_control import WCIController, fixed_batch_wci

if TYPE_CHECKING:
    from robaudit.training.recipe import Recipe
    from robaudit.types import Images, Labels, ThreatModel

_ADVERSARIAL: dict[str, Callable[..., Objective]] = {
    "at": At,
    "trades": Trades,
    "mart": Mart,
    "alp": Alp,
}


def method_of(recipe: Recipe, threat: ThreatModel, rotations: Rotations | None = None) -> Method:
    """The recipe's objective and regularisers; ``rotations`` are those of :func:`rotations_of`."""
    return Method(
        _objective(recipe, threat),
        trh=None if recipe.trh is None else TrH(**recipe.trh.model_dump()),
        taylor=None if recipe.taylor is None else Taylor(**recipe.taylor.model_dump()),
        awp=None if recipe.awp is None else Awp(**recipe.awp.model_dump()),
        rotations=rotations,
    )


def rotations_of(recipe: Recipe, model: nn.Module, x: Images) -> Rotations | None:
    """The recipe's rotations with a new head for the network, where it has them.

    Raises:
        UsageError: the network or the images cannot have it.
    """
    if recipe.rotations is None:
        return None
    return Rotations.of(model, x, recipe.rotations.weight, recipe.seed)


def learning_rates(recipe: Recipe) -> list[float] | None:
    """The schedule's rates, one per epoch; ``None`` where training itself decides them."""
    if recipe.wci is not None or recipe.schedule.kind == "plateau":
        return None
    plan, peak, epochs = recipe.schedule, recipe.learning_rate, recipe.epochs
    if plan.kind == "piecewise":
        return piecewise(peak, epochs, plan.milestones, plan.factor, warmup=plan.warmup)
    if plan.kind == "piecewise-zoom":
        falls = plan.milestones, plan.factor, plan.zoom
        return piecewise_zoom(peak, epochs, *falls, warmup=plan.warmup)
    if plan.kind == "cosine":
        return cosine(peak, epochs, warmup=plan.warmup)
    if plan.kind == "cyclic":
        return cyclic(peak, epochs)
    return constant(peak, epochs, warmup=plan.warmup)


def augmentation_of(recipe: Recipe) -> Augmentation:
    """What is done to the images of each batch."""
    settings = recipe.augment
    return Augmentation(
        pad=settings.pad,
        flip=settings.flip,
        brightness=settings.brightness,
        policy=AutoAugment.for_cifar10() if settings.autoaugment else None,
        cutout=settings.cutout,
        mixup=None if settings.mixup is None else Mixup(settings.mixup),
    )


def optimizer_of(
    recipe: Recipe, parameters: Iterable[nn.Parameter], generator: torch.Generator
) -> torch.optim.Optimizer:
    """The optimizer, at the recipe's learning rate; its draws come from ``generator``."""
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, rate, weight_decay=decay)
    if recipe.optimizer == "entropy-sgd":
        return EntropySGD(
            parameters,
            rate,
            momentum=recipe.momentum,
            weight_decay=decay,
            generator=generator,
            **(recipe.entropy_sgd or EntropyTable()).model_dump(),
        )
    return torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay)


def plateau_of(
    recipe: Recipe, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.ReduceLROnPlateau | None:
    """PyTorch's step on a plateau, where the recipe has it; it is given the robust loss."""
    plan = recipe.schedule
    if plan.kind != "plateau":
        return None
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=plan.factor, patience=plan.patience
    )


def control_of(
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    x: Images,
    y: Labels,
    threat: ThreatModel,
) -> WCIController | None:
    """Control of the learning rate by WCI, where the recipe has it."""
    if recipe.wci is None:
        return None
    settings = recipe.wci
    part = x[: settings.n].cpu(), y[: settings.n].cpu()
    return WCIController(
        optimizer,
        fixed_batch_wci(model, *part, threat, seed=recipe.seed),
        threshold=settings.threshold,
        after=settings.after,
        every=settings.every,
        decay=settings.decay,
    )


def _objective(recipe: Recipe, threat: ThreatModel) -> Objective:
    smoothing = recipe.label_smoothing
    if recipe.objective == "standard":
        return Standard(label_smoothing=smoothing)
    kind, attack = _ADVERSARIAL[recipe.objective], recipe.attack
    how = {"label_smoothing": smoothing, "early_stop": attack.early_stop}
    penalty = {} if recipe.penalty is None else {"penalty": recipe.penalty}
    return kind(threat, attack.steps, attack.step_size, **how, **penalty)
