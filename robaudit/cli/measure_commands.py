"""``robaudit wci``, ``flatness`` and ``hessian``: one family of measurements each."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from robaudit.audit.plan import Plan
from robaudit.audit.probes import Average, Bound, Hessian, Pgd, TopLayer, Wci, Worst
from robaudit.cli.display import loading
from robaudit.cli.flatness import measure_flatness
from robaudit.cli.measure import measure
from robaudit.cli.measure_options import (
    FlatnessOptions,
    LanczosOptions,
    PgdOptions,
    SpectrumOptions,
    TermOptions,
    TraceOptions,
    WeightOptions,
)
from robaudit.cli.options import Checkpoints, Settings, with_settings
from robaudit.errors import UsageError
from robaudit.protocols import STUTZ_STEP_OVER_EPS, reference_restarts

_OF_ATTACKS = frozenset({"samples", "straight_through"})
_NO_GAP = frozenset({"gap", "train_data"}) | _OF_ATTACKS


@with_settings(omit=_OF_ATTACKS, gap=True, steps=10)
def wci(
    checkpoints: Checkpoints,
    settings: Settings,
    traces: Annotated[TraceOptions, None],
    weights: Annotated[WeightOptions, None],
    terms: Annotated[TermOptions, "Terms of bounds"],
    attack: Annotated[PgdOptions, None],
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
    with loading(settings.quiet):
        from robaudit.curvature import check_constants

    constants = (terms.beta, terms.s0, terms.lambda_)
    check_constants(*constants)
    pgd = attack.probe(settings, checkpoints)
    index = Wci(
        pgd, traces.estimator, traces.probes, weights.chosen, weights.budget, Bound(*constants)
    )
    top_layer = TopLayer(pgd, terms.objective, terms.penalty)
    plan = Plan(probes=(pgd, index, top_layer))
    measure(checkpoints, plan, settings, exact=True, curve_of_one=True)


@with_settings(omit=_NO_GAP)
def flatness(
    checkpoints: Checkpoints,
    settings: Settings,
    moves: Annotated[FlatnessOptions, None],
    attack: Annotated[PgdOptions, None],
) -> None:
    """Average- and worst-case flatness of the robust loss in weight space.

    [bold]robaudit flatness ckpt.pt --data cifar10 --data-dir ~/data[/bold]

    How much the robust loss rises when every parameter tensor moves by the fraction xi of its own
    norm, in random directions and in the worst one found. Does not change when layers are rescaled.

    Several checkpoints give flatness beside the robust loss, in the order of their epochs, and how
    the two go together. With --out: flatness.csv, and as .svg and .png both pictures.
    """
    radii, worst_radii = moves.radii("xi"), moves.radii("worst_xi")
    published = moves.protocol != "default" and attack.step_size is None
    step = STUTZ_STEP_OVER_EPS if published else attack.step(settings, checkpoints)
    pgd = Pgd(attack.steps, attack.restarts, step)
    average = Average(
        pgd,
        xi=radii[-1],
        perturbations=moves.perturbations,
        ball="ball" if moves.ball else "sphere",
        tolerance=moves.tolerance,
        radii=radii[:-1],
        protocol=moves.protocol,
        clean=moves.clean,
    )
    worst = Worst(
        pgd,
        xi=worst_radii[-1],
        restarts=moves.worst_restarts,
        radii=worst_radii[:-1],
        protocol=moves.protocol,
        clean=moves.clean,
    )
    reference = replace(pgd, restarts=reference_restarts(moves.protocol, attack.restarts))
    spectrum = (Hessian(pgd),) if moves.eigenvalue else ()
    plan = Plan(probes=(reference, *spectrum, average, worst))
    measure_flatness(checkpoints, plan, settings)


@with_settings(omit=_NO_GAP, steps=10)
def hessian(
    checkpoints: Checkpoints,
    settings: Settings,
    lanczos: Annotated[LanczosOptions, None],
    weights: Annotated[WeightOptions, None],
    beside: Annotated[SpectrumOptions, None],
    attack: Annotated[PgdOptions, None],
) -> None:
    """The Hessian of the robust loss: layer traces, both ends of its spectrum, its density.

    [bold]robaudit hessian ckpt.pt --data cifar10 --data-dir ~/data --n 256[/bold]

    Eigenvalues come with residuals: each has a true eigenvalue within its residual. They change
    when layers are rescaled; the largest relative one, of D H D (D: the tensors' norms), does not.
    """
    if beside.spread_probes == 1:
        raise UsageError("--spread-probes 1: a standard deviation takes two probes or more")
    pgd = attack.probe(settings, checkpoints)
    spectrum = Hessian(
        pgd,
        None,
        lanczos.top,
        lanczos.probes,
        steps=lanczos.lanczos_steps,
        tolerance=lanczos.tolerance,
        operator=lanczos.operator,
        layers=weights.chosen,
        memory=weights.budget,
        spread_probes=beside.spread_probes,
        engine=beside.engine,
    )
    index = Wci(pgd, layers=weights.chosen, memory=weights.budget)
    measure(checkpoints, Plan(n=256, probes=(index, spectrum)), settings, exact=True)
