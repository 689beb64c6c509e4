"""Training by a recipe, from the beginning or resumed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robaudit.curvature.traces import classes_of
from robaudit.engine import seed_for
from robaudit.errors import UsageError
from robaudit.training.entropy_sgd import EntropySGD
from robaudit.training.extra_data import ExtraData
from robaudit.training.loop import DivergedError, run_epoch
from robaudit.training.parts import (
    augmentation_of,
    control_of,
    learning_rates,
    method_of,
    optimizer_of,
    plateau_of,
    rotations_of,
)
from robaudit.training.precision import TrainingPrecision, training_precision
from robaudit.training.recorded import RecordedNetwork
from robaudit.training.swa import Swa
from robaudit.training.validation import HeldOut, Validation, validated
from robaudit.training.weight_clip import WeightClip

if TYPE_CHECKING:
    from robaudit.training.recipe import Recipe
    from robaudit.types import Images, Labels, ThreatModel


@dataclass(frozen=True)
class Epoch:
    """The state of training after an epoch.

    Attributes:
        number: from 1.
        loss: mean training loss, including regularisers.
        images: in the batches of the epoch.
        learning_rate: in this epoch.
        wci: the controller's measurement after the epoch, or ``None``.
        average: the averaged parameters by name; empty before averaging begins.
        validation: on the examples held out, or ``None``.
        seconds: of the epoch's steps, without validation and control.
        state: everything :func:`fit` needs to resume; tensors and plain values.
    """

    number: int
    loss: float
    images: int
    learning_rate: float
    wci: float | None
    average: dict[str, Tensor]
    validation: Validation | None
    seconds: float
    state: dict[str, Any]


def fit(
    model: nn.Module,
    x: Images,
    y: Labels,
    recipe: Recipe,
    threat: ThreatModel,
    *,
    held: HeldOut | None = None,
    extra: ExtraData | None = None,
    state: dict[str, Any] | None = None,
    precision: TrainingPrecision = "fp32",
    network: nn.Module | None = None,
    on_epoch: Callable[[Epoch], None],
    on_step: Callable[[int, int], None] | None = None,
) -> None:
    """Train ``model`` in place.

    Every random draw is determined by the recipe's seed, and the state includes the generators: on
    a CPU, a run that is resumed from the state of any epoch ends with the same weights, bit for
    bit, as an uninterrupted one. The model is in eval mode when ``on_epoch`` is called, and random
    draws made there do not affect training.

    Args:
        model: images in ``[0, 1]`` to logits, on the device of training.
        x, y: training images and labels, on the same device.
        recipe: epochs, schedule, objective and regularisers.
        threat: the threat model of the adversarial examples.
        held: examples to validate on after each epoch; a recipe with ``validation`` needs them
            (:func:`robaudit.training.preparing.prepared`).
        extra: fills a part of each batch; a recipe with ``extra_data`` needs it.
        state: of an earlier :class:`Epoch` of the same run.
        precision: ``fp32``, ``tf32`` or ``bf16``.
        network: called instead of ``model`` in each step, such as its compiled form
            (:func:`robaudit.training.compiled.compiled`); it shares the model's weights.
        on_epoch: called after each epoch.
        on_step: called after each step with the number of steps done and of all in this epoch.

    Raises:
        UsageError: a regulariser does not support the network, the augmentation not the images, or
            the examples held out or the extra data are missing.
        DivergedError: the loss, or a weight after an epoch, is not finite.
    """
    if recipe.validation and held is None:
        raise UsageError("the recipe validates, and no examples are held out")
    if recipe.extra_data is not None and extra is None:
        raise UsageError("the recipe has extra data, and none is given")
    device = x.device
    rotations = rotations_of(recipe, model, x)
    head = None if rotations is None else rotations.head
    method = method_of(recipe, threat, rotations)
    generator = torch.Generator(device).manual_seed(recipe.seed)
    augmentation = augmentation_of(recipe)
    augmentation.check(tuple(x.shape[1:]))
    parameters = [p for p in model.parameters() if p.requires_grad]
    parameters += [] if head is None else head.parameters()
    optimizer = optimizer_of(recipe, parameters, generator)
    clip = None if recipe.weight_clip is None else WeightClip(recipe.weight_clip)
    control = control_of(recipe, optimizer, model, x, y, threat)
    plateau = plateau_of(recipe, optimizer)
    rates = learning_rates(recipe)
    swa = None if recipe.swa is None else Swa(recipe.swa.decay, recipe.swa.after)
    average: dict[str, Tensor] = {}
    called = model if network is None else network
    batches = -(-len(x) // recipe.batch_size)
    epoch, step, classes = 0, 0, 0

    # A compiled network launches few kernels as it is.
    recorded = None if network is not None else RecordedNetwork(model, device, precision)
    search = recorded if recorded is not None and recorded.passes.records else None

    def descend(x: Images, y: Labels) -> Tensor:
        nonlocal step
        done = (epoch - 1 + step / batches) / recipe.epochs
        step += 1
        x, y = augmentation(x, y, classes, seed_for(recipe.seed, epoch, step), generator)
        with training_precision(precision, device):
            return method.descend(called, x, y, generator, done=done, epoch=epoch, search=search)

    def after_step() -> None:
        if clip is not None:
            clip.apply(model)
        if swa is not None and epoch > swa.after:
            swa.update(average, model)
        if on_step is not None:
            on_step(step, batches)

    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if augmentation.mixup is not None:
            classes = classes_of(model, x)
        torch.manual_seed(recipe.seed)
        first = 1
        if state is not None:
            first = state["epoch"] + 1
            model.load_state_dict(state["model"])
            if head is not None:
                head.load_state_dict(state["head"])
            optimizer.load_state_dict(state["optimizer"])
            average.update({name: value.to(device) for name, value in state["average"].items()})
            generator.set_state(state["generator"])
            torch.set_rng_state(state["rng"])
            if devices:
                torch.cuda.set_rng_state(state["cuda_rng"], device)
            if control is not None:
                control.load_state_dict(state["control"])
            if plateau is not None:
                plateau.load_state_dict(state["plateau"])
        for epoch in range(first, recipe.epochs + 1):
            if rates is not None:
                for group in optimizer.param_groups:
                    group["lr"] = rates[epoch - 1]
            rate, step = float(optimizer.param_groups[0]["lr"]), 0
            begun = time.monotonic()
            model.train()
            done = run_epoch(
                x,
                y,
                descend,
                optimizer,
                generator,
                batch_size=recipe.batch_size,
                clip_norm=recipe.clip_norm,
                after_step=after_step,
                extra=extra,
            )
            if isinstance(optimizer, EntropySGD):
                optimizer.settle()
                if clip is not None:
                    clip.apply(model)
            model.eval()
            # The last step's loss may be finite and the weights after it not.
            if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
                raise DivergedError("the network's weights or statistics are not finite", step)
            seconds = time.monotonic() - begun
            if control is not None:
                control.step()
            found = None
            if held is not None:
                with torch.random.fork_rng(devices=devices):
                    found = validated(model, held, recipe, threat, precision)
                if plateau is not None:
                    plateau.step(found.loss)
            now = {
                "epoch": epoch,
                "model": model.state_dict(),
                "head": None if head is None else head.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average,
                "generator": generator.get_state(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state(device) if devices else None,
                "control": None if control is None else control.state_dict(),
                "plateau": None if plateau is None else plateau.state_dict(),
            }
            index = None if control is None else control.last_wci
            with torch.random.fork_rng(devices=devices):
                on_epoch(Epoch(epoch, *done, rate, index, average, found, seconds, now))
