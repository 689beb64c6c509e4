"""The options that mean the same in every command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from robaudit.cli.config_file import config_option


class Format(StrEnum):
    """What goes to stdout."""

    table = "table"
    json = "json"
    csv = "csv"
    md = "md"


class Split(StrEnum):
    """Which part of the data."""

    test = "test"
    train = "train"


class Norm(StrEnum):
    """The threat model's norm."""

    linf = "linf"
    l2 = "l2"
    l1 = "l1"


class Precision(StrEnum):
    """Of searches, and of curvature."""

    fp32 = "fp32"
    bf16 = "bf16"
    float64 = "float64"


FLOAT64_IS_OF_CURVATURE = (
    "--precision float64 is of traces and spectra: attacks search in fp32, as they are judged",
    "Give it to wci or hessian.",
)


class Copy(StrEnum):
    """Which copy of the weights."""

    raw = "raw"
    ema = "ema"
    swa = "swa"


AUTO = "auto"
"""The data where nobody names them."""

_MODEL, _DATA, _RUN, _OUT = "Model", "Data and threat", "Run", "Output"
DATA_PANEL, OUT_PANEL = _DATA, _OUT

Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="CKPT...",
        show_default=False,
        help="Checkpoint files (torch.save, safetensors, TorchScript, torch.export), Hugging Face "
        "folders, robustbench:cifar10/Linf/NAME, timm:NAME or torchvision:NAME.",
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|module:factory|file.py:factory",
        help="The network: its name, perhaps with arguments as in wide_resnet(depth=34), or your "
        "own code. [default: what the file says, else what its keys and shapes are]",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
Normalize = Annotated[
    str | None,
    typer.Option(
        metavar='NAME|"m,m,m;s,s,s"|none',
        help="Input normalisation the network was trained with. [default: what the file says, "
        "else what the data tells, else exit 4]",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
Guess = Annotated[
    bool,
    typer.Option(
        "--guess",
        help="Where the data does not tell which network or normalisation it is, go on with the "
        "likeliest, marked as assumed.",
        rich_help_panel=_MODEL,
    ),
]
Member = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="Which state dict, in a file that holds several: its path in the file, as inspect "
        "shows it.",
        rich_help_panel=_MODEL,
    ),
]
Weights = Annotated[
    Copy | None,
    typer.Option(
        help="Which copy of the weights, in a file that also holds averaged ones.",
        rich_help_panel=_MODEL,
    ),
]
TrustPickle = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Load a pickle that is more than weights. It can run any code: only with --sha256.",
        rich_help_panel=_MODEL,
    ),
]
Sha256 = Annotated[
    str | None,
    typer.Option(
        metavar="HEX",
        help="The file's SHA-256; another file is refused.",
        rich_help_panel=_MODEL,
    ),
]
ModelDir = Annotated[
    Path | None,
    typer.Option(
        help="Where a zoo's checkpoints are. [default: the zoo's own place]",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
DataName = Annotated[
    str,
    typer.Option(
        metavar="NAME|FILE|imagefolder:DIR",
        help="digits (bundled), mnist, fashion-mnist, cifar10, cifar100, svhn, a .npz or "
        ".safetensors file with x and y, imagefolder:DIR, or auto: what the checkpoint was trained "
        "on, where it lies in a usual place.",
        rich_help_panel=_DATA,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where torchvision's data sets are. [default: ./data, ~/data and the like]",
        show_default=False,
        rich_help_panel=_DATA,
    ),
]
Download = Annotated[
    bool,
    typer.Option(
        "--download",
        help="Fetch a torchvision set or a zoo's checkpoint that is not there.",
        rich_help_panel=_DATA,
    ),
]
SplitOption = Annotated[Split, typer.Option(help="The split to measure on.", rich_help_panel=_DATA)]
N = Annotated[
    int | None,
    typer.Option(
        "--n",
        min=1,
        help="Examples: the first n. [default: the preset's, as far as the data goes]",
        show_default=False,
        rich_help_panel=_DATA,
    ),
]
Sample = Annotated[
    bool,
    typer.Option("--sample", help="Draw the n examples by --seed instead.", rich_help_panel=_DATA),
]
TrainData = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="Training examples, for the generalisation gaps. [default: --data's training split]",
        show_default=False,
        rich_help_panel=_DATA,
    ),
]
Gap = Annotated[
    bool,
    typer.Option(help="Measure the training split as well.", rich_help_panel=_DATA),
]
NormOption = Annotated[
    Norm | None,
    typer.Option(
        case_sensitive=False,
        help="Norm of the perturbation. [default: that of a zoo's entry, else linf]",
        show_default=False,
        rich_help_panel=_DATA,
    ),
]
Eps = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|8/255",
        help="Its radius. [default: the usual one for the data set]",
        show_default=False,
        rich_help_panel=_DATA,
    ),
]
ForceEps = Annotated[
    bool,
    typer.Option(
        "--force-eps",
        help="Allow a radius of 1 or more in linf, where every image may become any other.",
        rich_help_panel=_DATA,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:0.", rich_help_panel=_RUN)]
BatchSize = Annotated[
    str,
    typer.Option(
        metavar="auto|N",
        help="Images per pass on a GPU, in multiples of 64. On a CPU results are the same bit for "
        "bit whatever it is; on a GPU rounding may differ in the last digits.",
        rich_help_panel=_RUN,
    ),
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="Arithmetic in which fast, native AutoAttack, Square and FAB search, and of the "
        "backward passes of layer traces. What a search finds counts if it breaks the network in "
        "fp32, but bf16 may miss something; traces stay in fp32 where bf16 would move one by a "
        "tenth of its standard error. float64 is of wci and hessian: traces and spectra, of a copy "
        "of the network in float64.",
        rich_help_panel=_RUN,
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Keep finished batches of attacks here; the same command goes on where it stopped.",
        rich_help_panel=_RUN,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.", rich_help_panel=_RUN)]
StraightThrough = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE",
        help="A module of the network that rounds or thresholds: gradients of attacks go through "
        "it as through the identity. Repeatable.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
Samples = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        help="Draws of a network that draws at random: K vote on each verdict, and gradients are "
        "averaged over K. [default: 10 where it draws, else 1]",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Write the report folder here (one folder each for several checkpoints).",
        rich_help_panel=_OUT,
    ),
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="What is printed.", rich_help_panel=_OUT)
]
Json = Annotated[
    bool,
    typer.Option("--json", help="The report on stdout and nothing else.", rich_help_panel=_OUT),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, no notes.", rich_help_panel=_OUT)
]


@dataclass(frozen=True)
class Settings:
    """What every measuring command is told; each field is an option."""

    arch: Arch = None
    normalize: Normalize = None
    guess: Guess = False
    member: Member = None
    weights: Weights = None
    model_dir: ModelDir = None
    sha256: Sha256 = None
    trust_pickle: TrustPickle = False
    data: DataName = AUTO
    data_dir: DataDir = None
    download: Download = False
    split: SplitOption = Split.test
    n: N = None
    sample: Sample = False
    gap: Gap = False
    train_data: TrainData = None
    norm: NormOption = None
    eps: Eps = None
    force_eps: ForceEps = False
    device: Device = "auto"
    batch_size: BatchSize = "auto"
    precision: PrecisionOption = Precision.fp32
    seed: Seed = 0
    samples: Samples = None
    straight_through: StraightThrough = None
    state: State = None
    config: Path | None = None  # its option is made for each command, from the others
    out: Out = None
    format: FormatOption = Format.table
    json: Json = False
    quiet: Quiet = False


def with_settings(
    omit: frozenset[str] = frozenset(), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of :class:`Settings`, handed to it as its ``settings``.

    Args:
        omit: options that this command does not have.
        defaults: defaults that differ here.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function, eval_str=True).parameters
        shared = inspect.signature(Settings, eval_str=True).parameters
        taken = [
            p.replace(kind=inspect.Parameter.KEYWORD_ONLY, default=defaults.get(p.name, p.default))
            for p in shared.values()
            if p.name not in omit
        ]

        def run(**given: Any) -> None:
            settings = Settings(**{p.name: given.pop(p.name) for p in taken})
            function(settings=settings, **given)

        parameters = [
            *(
                p.replace(kind=inspect.Parameter.KEYWORD_ONLY)
                for p in own.values()
                if p.name != "settings"
            ),
            *taken,
        ]
        if "config" not in omit:
            option = config_option(parameters, _RUN)
            parameters = [
                p.replace(annotation=option) if p.name == "config" else p for p in parameters
            ]
        signature = inspect.Signature(parameters)
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__signature__ = signature  # type: ignore[attr-defined]
        return run

    return decorate
