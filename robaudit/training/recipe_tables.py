"""The settings of a training recipe, a table each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robaudit.request import Count, Radius, Spec, ThreatSpec
from robaudit.schema import AnyCaseNorm

TaylorKind = Literal["exact", "last-layer"]


_Positive = Annotated[float, Field(gt=0)]
_Epochs = Annotated[int, Field(ge=0)]
_Share = Annotated[float, Field(gt=0, lt=1)]


class ThreatTable(ThreatSpec):
    """``[threat]``: what is trained against; the data's usual threat model where left out."""

    norm: AnyCaseNorm = Field(default="linf", description="of the perturbations")
    eps: Radius | None = Field(
        default=None, description="radius; the usual one for the data if left"
    )


class AttackTable(Spec):
    """``[attack]``: the PGD that makes the examples."""

    steps: Count = Field(default=10, description="of PGD")
    step_size: Radius | None = Field(default=None, description="eps / 4 if left")
    early_stop: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="steps that an example takes once it is misclassified"
    )


class ScheduleTable(Spec):
    """``[schedule]``: the learning rate over the epochs."""

    kind: Literal["constant", "piecewise", "piecewise-zoom", "cosine", "cyclic", "plateau"] = Field(
        default="constant", description="how the rate changes"
    )
    milestones: tuple[Count, ...] = Field(
        default=(),
        strict=False,
        description="piecewise, piecewise-zoom: epochs after which the rate falls",
    )
    factor: _Share = Field(
        default=0.1, description="piecewise, piecewise-zoom, plateau: of the rate in a fall"
    )
    warmup: _Epochs = Field(default=0, description="epochs in which the rate rises linearly")
    zoom: Count = Field(default=10, description="piecewise-zoom: epochs that a fall takes")
    patience: _Epochs = Field(
        default=10,
        description="plateau: epochs without a lower robust loss on the examples held out",
    )


class AugmentTable(Spec):
    """``[augment]``: random changes of the training images."""

    pad: _Epochs = Field(default=0, description="random crops after that many zeros on each side")
    flip: bool = Field(default=False, description="random mirror images")
    brightness: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="largest change of the factor 1 that multiplies each image"
    )
    autoaugment: bool = Field(
        default=False, description="torchvision's AutoAugment policy for CIFAR-10"
    )
    cutout: Count | None = Field(
        default=None, description="side in pixels of a square that is hidden in each image"
    )
    mixup: _Positive | None = Field(
        default=None, description="alpha of the beta distribution that mixes pairs of images"
    )


class TrhTable(Spec):
    """``[trh]``: Hessian-trace regularisation."""

    weight: _Positive = Field(default=5e-4, description="lambda")
    where: Literal["top", "full"] = Field(
        default="top", description="the last layer's weight, or all parameters of a small network"
    )
    schedule: Literal["constant", "linear", "multistep"] = Field(
        default="multistep", description="how lambda grows"
    )


class TaylorTable(Spec):
    """``[taylor]``: randomised weights by Taylor terms."""

    kind: TaylorKind = Field(
        default="exact", description="the paper's terms, or those of its public code"
    )
    order: Literal[1, 2] = Field(default=1, description="1, or 2 for both terms")
    eta: _Positive = Field(default=0.3, description="weight of the terms")
    sigma: _Positive = Field(default=0.01, description="standard deviation of the weights")
    draws: Count = Field(default=1, description="of the weights in each step")


class AwpTable(Spec):
    """``[awp]``: adversarial weight perturbation."""

    gamma: _Positive = Field(default=0.01, description="length relative to each weight")
    after: _Epochs = Field(default=0, description="epochs without it at the beginning")


class RotationsTable(Spec):
    """``[rotations]``: a second head that tells by how many quarter turns an image is turned."""

    weight: _Positive = Field(default=0.5, description="of its cross-entropy in the loss")


class SwaTable(Spec):
    """``[swa]``: the averaged network, saved beside the trained one."""

    decay: _Share = Field(default=0.995, description="of the average in each step")
    after: _Epochs = Field(default=0, description="epochs without it at the beginning")


class WciTable(Spec):
    """``[wci]``: learning-rate control, in place of a schedule."""

    threshold: Annotated[float, Field(ge=1)] = Field(
        default=100.0, description="an index above it divides the rate"
    )
    after: _Epochs = Field(default=100, description="epochs before the rate falls")
    every: Count = Field(default=1, description="epochs between measurements from there on")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="of the rate in that fall"
    )
    n: Count = Field(
        default=128, description="the first training images that the index is measured on"
    )


class EntropyTable(Spec):
    """``[entropy_sgd]``: the Langevin iterations of that optimizer."""

    langevin: Count = Field(default=20, description="batches to an outer step")
    scope: _Positive = Field(default=1e-4, description="pull to the weights they began at")
    scoping: Annotated[float, Field(ge=0)] = Field(
        default=1e-3, description="by which the scope grows in each outer step"
    )
    noise: Annotated[float, Field(ge=0)] = Field(default=1e-4, description="thermal noise")
    step_size: _Positive = Field(default=0.1, description="of each iteration")


class Recipe(Spec):
    """The whole file."""

    about: str = Field(default="", description="what the recipe is, in words")
    objective: Literal["standard", "at", "trades", "mart", "alp"] = Field(
        default="at", description="the loss, and the examples it is taken on"
    )
    penalty: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="of the loss's second part: 6 for TRADES and MART, 1 for ALP if left",
    )
    epochs: Count = Field(description="passes over the training set")
    batch_size: Count = Field(default=128, description="images in a step")
    seed: _Epochs = Field(default=0, description="of weights, order and every draw")
    learning_rate: _Positive = Field(default=0.1, description="the schedule's highest")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="of sgd and entropy-sgd"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=5e-4, description="factor of the weights in the gradient"
    )
    clip_norm: _Positive | None = Field(default=None, description="largest l2 norm of the gradient")
    optimizer: Literal["sgd", "adam", "entropy-sgd"] = Field(
        default="sgd", description="what takes the steps"
    )
    weight_clip: _Positive | None = Field(
        default=None, description="largest absolute value of a weight after each step"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of a label that all classes get alike"
    )
    label_noise: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of labels replaced by one of all classes, once for all"
    )
    start: str | None = Field(
        default=None, description="checkpoint of the same architecture whose weights begin"
    )
    extra_data: str | None = Field(
        default=None, description="npz or safetensors file of further images with labels"
    )
    extra_share: _Share = Field(default=0.5, description="of every batch, for the extra data")
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of the training data held out to find the best epoch"
    )
    threat: ThreatTable = ThreatTable()
    attack: AttackTable = AttackTable()
    schedule: ScheduleTable = ScheduleTable()
    augment: AugmentTable = AugmentTable()
    entropy_sgd: EntropyTable | None = None
    trh: TrhTable | None = None
    taylor: TaylorTable | None = None
    awp: AwpTable | None = None
    rotations: RotationsTable | None = None
    swa: SwaTable | None = None
    wci: WciTable | None = None
