"""``robaudit wci``, ``flatness`` and ``hessian``: one family of measurements each."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from robaudit.audit.plan import Plan
from robaudit.audit.probe import Layers
from robaudit.audit.probes import Average, Bound, Hessian, Pgd, TopLayer, Wci, Worst
from robaudit.audit.probes.hessian import HessianEngine, Operator
from robaudit.audit.probes.top_layer import Objective
from robaudit.audit.probes.wci import Estimator
from robaudit.cli.flatness import measure_flatness
from robaudit.cli.measure import measure
from robaudit.cli.options import Checkpoints, Settings, with_settings
from robaudit.errors import UsageError
from robaudit.protocols import STUTZ_STEP_OVER_EPS, Protocol, reference_restarts
from robaudit.types import parse_bytes

_TERMS = "Terms of bounds"
_OF_ATTACKS = frozenset({"samples", "straight_through"})
_NO_GAP = frozenset({"gap", "train_data"}) | _OF_ATTACKS

Steps = Annotated[int, typer.Option(min=1, help="Steps of PGD.")]
Restarts = Annotated[int, typer.Option(min=1, help="Random starts of PGD.")]
StepSize = Annotated[
    float | None,
    typer.Option(help="Step of PGD. [default: eps / 4]", show_default=False),
]


LayersOption = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="all|NAME,NAME...",
        help="Which weights: layers named as in the report's layer table or parameters "
        "(conv1.bias, attention.in_proj_weight), separated by commas; all for every parameter, "
        "biases, norm scales and embeddings included. [default: weights of convolutions, linear "
        "layers and attention projections]",
        show_default=False,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        metavar="BYTES|2GB",
        help="Memory that may be used beside the network, by estimate. [default: what is fast]",
        show_default=False,
    ),
]
Spread = Annotated[
    int,
    typer.Option(
        min=0,
        help="Probes for the standard deviation of each layer's eigenvalues, two or more; each "
        "costs a pass per layer.",
    ),
]


@with_settings(omit=_OF_ATTACKS, gap=True)
def wci(
    checkpoints: Checkpoints,
    settings: Settings,
    estimator: Annotated[
        Estimator,
        typer.Option(
            help="exact: Gauss-Newton traces, the Hessian's on piecewise linear networks. "
            "gauss-newton: probes for the same, for many classes. hessian: unbiased probes for "
            "smooth networks. auto: whichever gives the Hessian's."
        ),
    ] = "auto",
    probes: Annotated[
        int, typer.Option(min=1, help="Probes per example, for gauss-newton and hessian.")
    ] = 1,
    layers: LayersOption = None,
    memory: Memory = None,
    objective: Annotated[
        Objective,
        typer.Option(help="Training loss of the top layer's trace.", rich_help_panel=_TERMS),
    ] = "at",
    penalty: Annotated[
        float | None,
        typer.Option(
            help="Weight of that loss's second part. [default: 6 for trades and mart, 1 for alp]",
            show_default=False,
            rich_help_panel=_TERMS,
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(
            help="beta of the PAC-Bayes terms. [default: the training split's size]",
            show_default=False,
            rich_help_panel=_TERMS,
        ),
    ] = None,
    s0: Annotated[
        float | None,
        typer.Option(
            "--s0",
            help="Standard deviation of their prior. [default: d^-1/2, d numbers an image]",
            show_default=False,
            rich_help_panel=_TERMS,
        ),
    ] = None,
    lambda_: Annotated[
        float | None,
        typer.Option(
            "--lambda",
            help="lambda in sqrt(2 / lambda) WCI. [default: the training split's size]",
            show_default=False,
            rich_help_panel=_TERMS,
        ),
    ] = None,
    steps: Steps = 10,
    restarts: Restarts = 1,
    step_size: StepSize = None,
) -> None:
    """The Weight-Curvature Index, its bound, and the layer table.

    [bold]robaudit wci ckpt.pt --data cifar10 --data-dir ~/data[/bold]

    WCI = sum over layers of sqrt(||W_k||_F^2 Tr(H_k)), H_k the Hessian of the loss at PGD-10
    examples in layer k's weights. For ReLU networks the traces are exact: no sampling noise. The
    training split is measured too, with the generalisation gaps; --no-gap leaves it out.

    Several checkpoints give the curve, in the order of their epochs: WCI beside the gaps of robust
    loss and error, and its parts, weight norm and trace. With --out: curve.csv, curve.svg and .png.

    Beside it stand the top layer's trace under a training loss (TrH) and the PAC-Bayes terms.
    """
    from robaudit.curvature import check_constants

    check_constants(beta, s0, lambda_)
    pgd = Pgd(steps, restarts, relative_step(step_size, settings, checkpoints))
    index = Wci(pgd, estimator, probes, _layers(layers), _bytes(memory), Bound(beta, s0, lambda_))
    top_layer = TopLayer(pgd, objective, penalty)
    plan = Plan(probes=(pgd, index, top_layer))
    measure(checkpoints, plan, settings, exact=True, curve_of_one=True)


@with_settings(omit=_NO_GAP)
def flatness(
    checkpoints: Checkpoints,
    settings: Settings,
    xi: Annotated[
        str,
        typer.Option(
            metavar="X[,X...]",
            help="Relative radius of the random weight changes; several give a table over radii.",
        ),
    ] = "0.5",
    perturbations: Annotated[
        int, typer.Option(min=1, help="Random weight changes; 0.5 and 10 are the paper's.")
    ] = 10,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Stop drawing weight changes once the standard error is below this, after five at "
            "the earliest. [default: draw them all]",
            show_default=False,
        ),
    ] = None,
    ball: Annotated[
        bool,
        typer.Option("--ball", help="Draw weight changes inside the ball, not on its surface."),
    ] = False,
    worst_xi: Annotated[
        str,
        typer.Option(
            metavar="X[,X...]",
            help="Relative radius of the worst-case weight change; several give a table over them",
        ),
    ] = "0.00075",
    worst_restarts: Annotated[int, typer.Option(min=1, help="Restarts of the search for it.")] = 10,
    protocol: Annotated[
        Protocol,
        typer.Option(
            help="stutz2021, as the published code: ten random starts of PGD for the unperturbed "
            "network, one for the perturbed; steps of 0.007 at eps 8/255; the worst case steps "
            "after each 128 images and counts where it ends. stutz2021-text, as the paper: each "
            "128 images have a worst case of their own."
        ),
    ] = "default",
    clean: Annotated[
        bool, typer.Option("--clean", help="Also the flatness of the loss on clean images.")
    ] = False,
    eigenvalue: Annotated[
        bool,
        typer.Option("--eigenvalue", help="Also the largest eigenvalue of the Hessian."),
    ] = False,
    steps: Steps = 20,
    restarts: Restarts = 1,
    step_size: StepSize = None,
) -> None:
    """Average- and worst-case flatness of the robust loss in weight space.

    [bold]robaudit flatness ckpt.pt --data cifar10 --data-dir ~/data[/bold]

    How much the robust loss rises when every parameter tensor moves by the fraction xi of its own
    norm, in random directions and in the worst one found. Does not change when layers are rescaled.

    Several checkpoints give flatness beside the robust loss, in the order of their epochs, and how
    the two go together. With --out: flatness.csv, and as .svg and .png both pictures.
    """
    radii, worst_radii = _relative_radii(xi, "--xi"), _relative_radii(worst_xi, "--worst-xi")
    published = protocol != "default" and step_size is None
    step = STUTZ_STEP_OVER_EPS if published else relative_step(step_size, settings, checkpoints)
    pgd = Pgd(steps, restarts, step)
    average = Average(
        pgd,
        xi=radii[-1],
        perturbations=perturbations,
        ball="ball" if ball else "sphere",
        tolerance=tolerance,
        radii=radii[:-1],
        protocol=protocol,
        clean=clean,
    )
    worst = Worst(
        pgd,
        xi=worst_radii[-1],
        restarts=worst_restarts,
        radii=worst_radii[:-1],
        protocol=protocol,
        clean=clean,
    )
    reference = replace(pgd, restarts=reference_restarts(protocol, restarts))
    spectrum = (Hessian(pgd),) if eigenvalue else ()
    plan = Plan(probes=(reference, *spectrum, average, worst))
    measure_flatness(checkpoints, plan, settings)


@with_settings(omit=_NO_GAP)
def hessian(
    checkpoints: Checkpoints,
    settings: Settings,
    top: Annotated[int, typer.Option(min=1, help="Largest eigenvalues.")] = 5,
    probes: Annotated[int, typer.Option(min=1, help="Start vectors for trace and density.")] = 5,
    lanczos_steps: Annotated[
        int, typer.Option(min=2, help="Hessian products at most, for the eigenvalues.")
    ] = 80,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Residual, relative to the eigenvalue, to stop at.")
    ] = 1e-3,
    operator: Annotated[
        Operator,
        typer.Option(
            help="gauss-newton: its positive part, without the curvature of the network itself; of "
            "few examples its whole spectrum."
        ),
    ] = "hessian",
    layers: LayersOption = None,
    memory: Memory = None,
    spread_probes: Spread = 0,
    engine: Annotated[
        HessianEngine,
        typer.Option(help="pyhessian: show that library's trace and largest eigenvalue as well."),
    ] = "robaudit",
    steps: Steps = 10,
    restarts: Restarts = 1,
    step_size: StepSize = None,
) -> None:
    """The Hessian of the robust loss: layer traces, both ends of its spectrum, its density.

    [bold]robaudit hessian ckpt.pt --data cifar10 --data-dir ~/data --n 256[/bold]

    Eigenvalues come with residuals: each has a true eigenvalue within its residual. They change
    when layers are rescaled; the largest relative one, of D H D (D: the tensors' norms), does not.
    """
    if spread_probes == 1:
        raise UsageError("--spread-probes 1: a standard deviation takes two probes or more")
    pgd = Pgd(steps, restarts, relative_step(step_size, settings, checkpoints))
    chosen, budget = _layers(layers), _bytes(memory)
    spectrum = Hessian(
        pgd,
        None,
        top,
        probes,
        steps=lanczos_steps,
        tolerance=tolerance,
        operator=operator,
        layers=chosen,
        memory=budget,
        spread_probes=spread_probes,
        engine=engine,
    )
    index = Wci(pgd, layers=chosen, memory=budget)
    measure(checkpoints, Plan(n=256, probes=(index, spectrum)), settings, exact=True)


def _layers(text: str | None) -> Layers:
    if text is None or text.strip() == "all":
        return "all" if text else None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError("--layers names no layer", "Name one, or leave the option out.")
    return names


def _relative_radii(text: str, option: str) -> tuple[float, ...]:
    """Ascending, no two alike."""
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(
            f"{option} {text}: not a list of numbers", f"Write it as {option} 0.1,0.25,0.5."
        ) from None
    return tuple(found)


def _bytes(text: str | None) -> int | None:
    return None if text is None else parse_bytes(text)


def relative_step(step_size: float | None, settings: Settings, checkpoints: list[str]) -> float:
    """A step size in units of eps, as plans have it."""
    if step_size is None:
        return 0.25
    from robaudit.session import threat_of
    from robaudit.session.which_data import with_data

    if not step_size > 0:
        raise UsageError(f"--step-size must be positive, not {step_size:g}")
    return step_size / threat_of(with_data(settings, checkpoints), checkpoints).eps
