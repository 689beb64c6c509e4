"""What is asked for: how a checkpoint is opened, on which data, within which threat model.

Each setting is defined here once. The options of the command line, manifests and jobs of a batch,
policies of a gate and recipes take their fields from these models, and messages name these fields.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from robaudit.errors import UsageError, did_you_mean
from robaudit.schema import AnyCaseNorm
from robaudit.types import check_radius, parse_eps, parse_threats

AUTO = "auto"
"""In place of a data set's name: the one that the checkpoint was trained on."""

Copy = Literal["raw", "ema", "swa"]
Split = Literal["test", "train"]
Precision = Literal["auto", "fp32", "tf32", "bf16", "float64"]
PresetName = Literal["quick", "standard", "paper"]


def _radius(value: Any) -> Any:
    """A number, also from text such as ``"8/255"``; other types are left for pydantic to refuse."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    try:
        return check_radius(parse_eps(value))
    except UsageError as error:
        raise ValueError(error.message) from error


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) else value


def _batch_size(value: Any) -> Any:
    if value != "auto" and not (str(value).isdigit() and int(value) > 0):
        raise ValueError(f"{value} is neither auto nor a positive number")
    return value if value == "auto" else int(value)


def _threats(value: Any) -> Any:
    if isinstance(value, str):
        try:
            parse_threats(value)
        except UsageError as error:
            said = UsageError(f"union {value}: {error.message}", error.advice, field="union")
            raise ValueError(error.message) from said
    return value


UnionText = Annotated[str, BeforeValidator(_threats, json_schema_input_type=str)]
"""Norms with their radii, such as ``linf:8/255,l2:0.5``; see ``robaudit.types.parse_threats``."""
Radius = Annotated[float, BeforeValidator(_radius, json_schema_input_type=float | str)]
"""A radius or step in units of [0, 1]: a positive number, or a fraction such as ``"8/255"``."""
Folder = Annotated[Path, BeforeValidator(_path, json_schema_input_type=str)]
BatchSize = Annotated[
    int | Literal["auto"],
    BeforeValidator(_batch_size, json_schema_input_type=int | Literal["auto"]),
]
Count = Annotated[int, Field(ge=1)]


class Spec(BaseModel):
    """Settings that are checked as they are made: unknown names and other types are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def changed(self, **fields: Any) -> Self:
        """A copy in which some fields have other values, which are not checked again."""
        return self.model_copy(update=fields)

    def only(self, spec: type[Spec]) -> dict[str, Any]:
        """The fields of ``spec`` that this has, by name."""
        names = spec.model_fields.keys() & type(self).model_fields.keys()
        return {name: getattr(self, name) for name in spec.model_fields if name in names}

    def stated(self, spec: type[Spec]) -> dict[str, Any]:
        """Those of :meth:`only` that have another value than their default."""
        usual = {name: field.default for name, field in spec.model_fields.items()}
        return {name: value for name, value in self.only(spec).items() if value != usual[name]}


S = TypeVar("S", bound=Spec)


class UnionSpec(Spec):
    """The norms that an example has to withstand all of."""

    union: UnionText | None = Field(
        default=None,
        description="Also the accuracy under attacks in every norm of a list: "
        "linf:8/255,l2:0.5,l1:12.",
    )


class UnionsSpec(UnionSpec):
    """A union, and how much of it is found out."""

    union_each: bool = Field(
        default=False,
        description="For the union, attack every example in every norm, also those that another "
        "norm broke: each norm's own accuracy, and what it alone breaks.",
    )


class PlanSpec(UnionsSpec):
    """What is measured; see :func:`robaudit.audit.plan.planned`."""

    preset: PresetName = Field(
        default="standard",
        description="quick: PGD, WCI and flatness on 256 examples. standard: also CW, native "
        "AutoAttack and the Hessian's spectrum, on 1000. paper: the papers' own settings, "
        "AutoAttack by its library.",
    )
    also: tuple[str, ...] = Field(
        default=(),
        description="A further probe by its name, with its default settings: fast, distance, "
        "certified and others. Repeatable.",
    )


class CheckpointSpec(Spec):
    """How a checkpoint is opened; the same for all checkpoints of one command."""

    arch: str | None = Field(
        default=None,
        description="The network: its name, perhaps with arguments as in wide_resnet(depth=34), or "
        "your own code. [default: what the file says, else what its keys and shapes are]",
    )
    normalize: str | None = Field(
        default=None,
        description="Input normalisation the network was trained with. [default: what the file "
        "says, else what the data tells, else exit 4]",
    )
    guess: bool = Field(
        default=False,
        description="Where the data does not tell which network or normalisation it is, go on with "
        "the likeliest, marked as assumed.",
    )
    member: str | None = Field(
        default=None,
        description="Which state dict, in a file that holds several: its path in the file, as "
        "inspect shows it.",
    )
    weights: Copy | None = Field(
        default=None,
        description="Which copy of the weights, in a file that also holds averaged ones.",
    )
    model_dir: Folder | None = Field(
        default=None, description="Where a zoo's checkpoints are. [default: the zoo's own place]"
    )
    sha256: str | None = Field(
        default=None, description="The file's SHA-256; another file is refused."
    )
    trust_pickle: bool = Field(
        default=False,
        description="Load a pickle that is more than weights. It can run any code: only with "
        "--sha256.",
    )


class ExamplesSpec(Spec):
    """Which examples are measured on."""

    data: str = Field(
        default=AUTO,
        description="digits (bundled), mnist, fashion-mnist, cifar10, cifar100, svhn, a .npz or "
        ".safetensors file with x and y, imagefolder:DIR, or auto: what the checkpoint was trained "
        "on, where it lies in a usual place. For corruptions also cifar10-c, cifar100-c, "
        "imagenet-c or corruptions:DIR.",
    )
    data_dir: Folder | None = Field(
        default=None,
        description="Where torchvision's data sets are. [default: ./data, ~/data and the like]",
    )
    download: bool = Field(
        default=False,
        description="Fetch a torchvision set or a zoo's checkpoint that is not there.",
    )
    split: Split = Field(default="test", description="The split to measure on.")
    n: Count | None = Field(
        default=None,
        description="Examples: the first n. [default: the preset's, as far as the data goes]",
    )
    sample: bool = Field(default=False, description="Draw the n examples by --seed instead.")


class DataSpec(ExamplesSpec):
    """The examples, and those of the training split for the generalisation gaps."""

    gap: bool = Field(default=False, description="Measure the training split as well.")
    train_data: str | None = Field(
        default=None,
        description="Training examples, for the generalisation gaps. [default: --data's training "
        "split]",
    )


class ThreatSpec(Spec):
    """The threat model, as far as it is stated."""

    norm: AnyCaseNorm | None = Field(
        default=None,
        description="Norm of the perturbation. [default: that of a zoo's entry, else linf]",
    )
    eps: Radius | None = Field(
        default=None, description="Its radius. [default: the usual one for the data set]"
    )
    force_eps: bool = Field(
        default=False,
        description="Allow a radius of 1 or more in linf, where every image may become any other.",
    )


class RunSpec(Spec):
    """How the measurements are computed."""

    device: str = Field(
        default="auto",
        description="auto, cpu, cuda or cuda:0; or several GPUs that share the examples: "
        "cuda:0,cuda:1, or cuda:all.",
    )
    batch_size: BatchSize = Field(
        default="auto",
        description="Images per pass on a GPU, in multiples of 64. On a CPU results are the same "
        "bit for bit whatever it is; on a GPU rounding may differ in the last digits.",
    )
    precision: Precision = Field(
        default="auto",
        description="Arithmetic in which attacks search: auto is the fastest in which logits and "
        "gradients agree with the network's. What a search finds counts if it breaks the network "
        "in fp32, and every reported loss is of fp32. Backward passes of layer traces also run in "
        "bf16 where it is given and would move none by a tenth of its standard error. float64 is "
        "of wci and hessian: traces and spectra, of a copy of the network in float64.",
    )
    seed: int = Field(default=0, description="Seed of every random draw.")
    samples: int | None = Field(
        default=None,
        description="Draws of a network that draws at random: K vote on each verdict, and "
        "gradients are averaged over K. [default: 10 where it draws, else 1]",
    )
    straight_through: tuple[str, ...] = Field(
        default=(),
        description="A module of the network that rounds or thresholds: gradients of attacks go "
        "through it as through the identity. Repeatable.",
    )
    state: Folder | None = Field(
        default=None,
        description="Keep finished batches of attacks here; the same command goes on where it "
        "stopped.",
    )


class Request(CheckpointSpec, DataSpec, ThreatSpec, RunSpec):
    """Everything that an audit depends on beside the checkpoints and the plan."""


def made(spec: type[S], values: Mapping[str, Any]) -> S:
    """The settings with these values.

    Raises:
        UsageError: there is no such setting, or a value cannot be meant; names the field.
    """
    try:
        return spec(**values)
    except ValidationError as error:
        raise refusal(error) from None


def refusal(error: ValidationError) -> UsageError:
    """The first thing that is wrong, as an error that names its field."""
    # An unknown name is the likelier cause of a missing one than the other way round.
    found = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")[0]
    cause = getattr(found.get("ctx", {}).get("error"), "__cause__", None)
    if isinstance(cause, UsageError):
        return cause
    name = ".".join(str(part) for part in found["loc"] if isinstance(part, str))
    if found["type"] == "extra_forbidden":
        known = sorted(Request.model_fields)
        return UsageError(f"{name}: no such setting{did_you_mean(name, known)}", field=name)
    said = found["msg"].removeprefix("Value error, ")
    if said == found["msg"] and isinstance(found["input"], str | int | float):
        said += f", not {found['input']}"
    return UsageError(f"{name}: {said}", field=name)
