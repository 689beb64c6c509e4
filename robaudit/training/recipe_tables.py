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

    norm: AnyCaseNorm = "linf"


class AttackTable(Spec):
    """``[attack]``: the PGD that makes the examples."""

    steps: Count = 10
    step_size: Radius | None = Field(default=None, description="eps / 4 if left")
    early_stop: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="steps that an example takes once it is misclassified"
    )


class ScheduleTable(Spec):
    """``[schedule]``: the learning rate over the epochs."""

    kind: Literal["constant", "piecewise", "piecewise-zoom", "cosine", "cyclic", "plateau"] = (
        "constant"
    )
    milestones: tuple[Count, ...] = Field(
        default=(), strict=False, description="piecewise: epochs after which the rate falls"
    )
    factor: _Share = 0.1
    warmup: _Epochs = 0
    zoom: Count = Field(default=10, description="piecewise-zoom: epochs that a fall takes")
    patience: _Epochs = Field(
        default=10,
        description="plateau: epochs without a lower robust loss on the examples held out",
    )


class AugmentTable(Spec):
    """``[augment]``: random changes of the training images."""

    pad: _Epochs = Field(default=0, description="random crops after that many zeros on each side")
    flip: bool = Field(default=False, description="random mirror images")
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

    weight: _Positive = 5e-4
    where: Literal["top", "full"] = "top"
    schedule: Literal["constant", "linear", "multistep"] = "multistep"


class TaylorTable(Spec):
    """``[taylor]``: randomised weights by Taylor terms."""

    kind: TaylorKind = "exact"
    order: Literal[1, 2] = 1
    eta: _Positive = 0.3
    sigma: _Positive = 0.01
    draws: Count = 1


class AwpTable(Spec):
    """``[awp]``: adversarial weight perturbation."""

    gamma: _Positive = 0.01
    after: _Epochs = 0


class SwaTable(Spec):
    """``[swa]``: the averaged network, saved beside the trained one."""

    decay: _Share = 0.995
    after: _Epochs = 0


class WciTable(Spec):
    """``[wci]``: learning-rate control, in place of a schedule."""

    threshold: Annotated[float, Field(ge=1)] = 100.0
    after: _Epochs = 100
    every: Count = 1
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    n: Count = Field(
        default=128, description="the first training images that the index is measured on"
    )


class EntropyTable(Spec):
    """``[entropy_sgd]``: the Langevin iterations of that optimizer."""

    langevin: Count = Field(default=20, description="batches to an outer step")
    scope: _Positive = 1e-4
    scoping: Annotated[float, Field(ge=0)] = 1e-3
    noise: Annotated[float, Field(ge=0)] = 1e-4
    step_size: _Positive = 0.1


class Recipe(Spec):
    """The whole file."""

    about: str = ""
    objective: Literal["standard", "at", "trades", "mart", "alp"] = "at"
    penalty: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="of the loss's second part: 6 for TRADES and MART, 1 for ALP if left",
    )
    epochs: Count
    batch_size: Count = 128
    seed: _Epochs = 0
    learning_rate: _Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    clip_norm: _Positive | None = None
    optimizer: Literal["sgd", "adam", "entropy-sgd"] = "sgd"
    weight_clip: _Positive | None = Field(
        default=None, description="largest absolute value of a weight after each step"
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
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
    swa: SwaTable | None = None
    wci: WciTable | None = None
