"""The Hessian's spectrum: both ends, trace and density, and the largest relative eigenvalue."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from robaudit.audit.names import authors, inside, restricting
from robaudit.audit.numbers import estimate, finite
from robaudit.audit.probe import TRACES, Layers, Probe
from robaudit.audit.probes.pgd import PGD10, Pgd
from robaudit.errors import UsageError
from robaudit.measures import measure
from robaudit.schema import Measurement
from robaudit.types import Estimator, Operator

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.audit.context import Context
    from robaudit.curvature import Largest, LayerTraces, Spectrum

# Of a Gauss-Newton matrix: examples times classes less one. The cost grows with its square.
_SMALL_RANK = 1024
# Passes of one example for a product of the Hessian and a vector.
_PRODUCT = 6

HessianEngine = Literal["robaudit", "pyhessian"]


@dataclass(frozen=True)
class Hessian(Probe):
    """Both ends of the spectrum, density and trace, at the first ``n`` PGD examples.

    ``engine="pyhessian"`` has that library measure what it can as well, as a second opinion.

    Attributes:
        layers: the parameters it is restricted to; ``None`` and ``"all"`` for all.
        memory: bytes for Lanczos vectors.
        spread_probes: probes for the standard deviation of each layer's eigenvalues; 0 for none.
    """

    name = "hessian"
    measures = (
        measure(
            "hessian.trace",
            "Hessian trace",
            place=50,
            study="Hessian trace",
            formula="trace of the Hessian in all parameters, the sum of its blocks' traces: exact "
            "where they are",
        ),
        measure(
            "hessian.largest",
            "Largest eigenvalue",
            place=60,
            error_bar="none",
            heading="Largest\neigenv.",
            of_one_architecture=True,
            study="largest eigenv.",
            formula="largest eigenvalue of the Hessian in **all** parameters",
            error="residual `r`: an eigenvalue lies within `r`; it counts the rounding of the "
            "products",
        ),
        measure(
            "hessian.smallest",
            "Smallest eigenvalue",
            place=70,
            error_bar="none",
            formula="its smallest eigenvalue",
            error="residual",
        ),
        measure(
            "hessian.relative_largest",
            "Largest relative eigenvalue",
            place=80,
            error_bar="none",
            study="relative eigenv.",
            formula="largest eigenvalue of `D H D`, `D` the norm of each parameter tensor",
            error="residual",
        ),
    )

    pgd: Pgd = PGD10
    n: int | None = 256
    top: int = 5
    probes: int = 3
    steps: int = 80
    density_steps: int = 20
    tolerance: float = 1e-3
    operator: Operator = "hessian"
    layers: Layers = None
    memory: int | None = None
    spread_probes: int = 0
    engine: HessianEngine = "robaudit"

    def __post_init__(self) -> None:
        if self.engine == "pyhessian" and (
            self.operator != "hessian" or self.layers not in (None, "all")
        ):
            raise UsageError(
                "PyHessian measures the Hessian of the whole network and nothing else",
                "Leave --layers and --operator out, or --engine pyhessian.",
            )

    @property
    def expected(self) -> tuple[str, ...]:
        return "hessian.largest", "hessian.smallest", "hessian.trace"

    def price(self, n: int, n_train: int) -> int:
        products = 2 * self.steps + (self.probes - 1) * self.density_steps
        return min(n, self.n or n) * (products * _PRODUCT + TRACES)

    def shared(self, n: int, n_train: int) -> dict[Pgd, int]:
        return {self.pgd: min(n, self.n or n)}

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import curvature
        from robaudit.curvature.matrices import MEMORY
        from robaudit.engine import in_float64

        attacked = context.adversarial(context.main, self.pgd, self.n)
        n = len(attacked.x)
        if context.double:
            double = in_float64(context.model, attacked.x)
            attacked = replace(attacked, x=attacked.x.double())
            context = replace(context, model=double)
        y = context.y(context.main, n)
        layers = restricting(context.model, self.layers)
        small = self._diagonalised(context, attacked.x)

        common: dict[str, Any] = {
            "steps": self.steps,
            "tolerance": self.tolerance,
            "operator": self.operator,
            "layers": layers,
            "memory": self.memory,
            "precision": "float64" if context.double else context.precision,
            "seed": context.seed,
        }

        def diagonalised(relative: bool) -> Spectrum:
            with context.watch(f"Gram matrix of {n} {context.main} examples") as progress:
                return curvature.small_spectrum(
                    context.model,
                    attacked.x,
                    top=1 if relative else self.top,
                    relative=relative,
                    layers=layers,
                    memory=self.memory or MEMORY,
                    progress=progress,
                )

        def iterated() -> Spectrum:
            with context.watch(f"spectrum on {n} {context.main} examples") as progress:
                return curvature.spectrum(
                    context.model,
                    attacked.x,
                    y,
                    top=self.top,
                    probes=self.probes,
                    density_steps=self.density_steps,
                    halves=True,
                    progress=progress,
                    **common,
                )

        def largest_relative() -> Largest:
            with context.watch(f"relative eigenvalue on {n} {context.main} examples") as progress:
                return curvature.largest_eigenvalue(
                    context.model, attacked.x, y, relative=True, progress=progress, **common
                )

        found = diagonalised(relative=False) if small else iterated()
        traces = self._traces(context, attacked.x, y)
        spread = self._spread(context, attacked.x, y)
        theirs = self._second_opinion(context, attacked.x, y)
        own = _of_largest(diagonalised(relative=True)) if small else largest_relative()
        density = found.density
        told = [authors(context.model)(note) for note in found.notes]
        probed = 0.0 if small else found.trace_standard_error
        fields: dict[str, Any] = {
            "n": n,
            "settings": {**asdict(self), "method": found.method},
            "split": context.main,
        }
        halves = {} if found.halves is None else {"halves": list(found.halves)}
        return [
            Measurement(
                name="hessian.largest",
                value=found.largest[0],
                details={
                    "eigenvalues": list(found.largest),
                    "residuals": list(found.residuals),
                    "products": found.products,
                    "restarts": found.restarts,
                    "dimension": found.dimension,
                    "precision": found.precision,
                    "rounding": found.rounding,
                    **halves,
                    **theirs.get("hessian.largest", {}),
                },
                warnings=[*told, *_late(found)],
                **fields,
            ),
            Measurement(
                name="hessian.smallest",
                value=found.smallest,
                details={"residuals": [found.smallest_residual]},
                **fields,
            ),
            estimate(
                name="hessian.trace",
                value=traces.total,
                standard_error=traces.total_standard_error,
                details={
                    "estimator": traces.estimator,
                    "precision": traces.precision,
                    "rounding": traces.total_rounding,
                    "probed": {"trace": found.trace, "standard_error": finite(probed)},
                    "density": {
                        "grid": density.grid.tolist(),
                        "density": density.density.tolist(),
                        "standard_error": [finite(v) for v in density.standard_error.tolist()],
                        "sigma": density.sigma,
                    },
                    **spread,
                    **theirs.get("hessian.trace", {}),
                },
                **fields,
            ),
            Measurement(
                name="hessian.relative_largest",
                value=own.value,
                details={
                    "residuals": [own.residual],
                    "products": own.products,
                    "precision": own.precision,
                },
                warnings=_unconverged(own, self.tolerance),
                **fields,
            ),
        ]

    def _diagonalised(self, context: Context, x: Tensor) -> bool:
        """Whether a Gauss-Newton matrix has so small a rank that all its eigenvalues are computed.

        It does not depend on labels or probes.
        """
        from robaudit import curvature
        from robaudit.curvature.matrices import MEMORY
        from robaudit.curvature.selection import chosen_parameters
        from robaudit.curvature.traces import classes_of
        from robaudit.engine import effective

        if self.operator != "gauss-newton":
            return False
        columns = classes_of(context.model, x) - 1
        plain = effective(context.model, x)
        chosen = chosen_parameters(plain, restricting(plain, self.layers)).values()
        dim = sum(parameter.numel() for parameter in chosen)
        element = max(parameter.element_size() for parameter in chosen)
        needed = curvature.gram_bytes(len(x), columns, dim, element)
        return len(x) * columns <= _SMALL_RANK and needed <= (self.memory or MEMORY)

    def _traces(self, context: Context, x: Tensor, y: Tensor) -> LayerTraces:
        """The matrix's trace as the sum of its blocks' traces, exact where the network allows."""
        from robaudit import curvature
        from robaudit.curvature.traces import classes_of, gauss_newton_estimator

        estimator: Estimator = "auto"
        if self.operator == "gauss-newton":
            estimator = gauss_newton_estimator(classes_of(context.model, x))
        with context.watch(f"trace on {len(x)} {context.main} examples") as progress:
            return curvature.layer_traces(
                context.model,
                x,
                y,
                estimator=estimator,
                layers=inside(context.model, self.layers) or "all",
                precision=context.precision,
                seed=context.seed,
                index=context.index(context.main, len(x)),
                progress=progress,
            )

    def _spread(self, context: Context, x: Tensor, y: Tensor) -> dict[str, Any]:
        """How each layer's eigenvalues lie around their mean."""
        from robaudit import curvature

        if self.spread_probes == 0:
            return {}
        own = authors(context.model)
        names = inside(context.model, self.layers)
        with context.watch(f"spread of each layer's eigenvalues on {len(x)} examples") as progress:
            spreads = curvature.layer_spreads(
                context.model,
                x,
                y,
                layers=names if isinstance(names, tuple) else None,
                probes=self.spread_probes,
                seed=context.seed,
                progress=progress,
            )
        rows = [{"name": own(name), **asdict(spread)} for name, spread in spreads.items()]
        return {"layers": rows}

    def _second_opinion(self, context: Context, x: Tensor, y: Tensor) -> dict[str, dict[str, Any]]:
        """By measurement, what PyHessian adds to its details, where that is asked for."""
        from robaudit import curvature

        if self.engine != "pyhessian":
            return {}
        with context.watch(f"PyHessian on {len(x)} {context.main} examples"):
            found = curvature.pyhessian(context.model, x, y, top=self.top, seed=context.seed)
        trace = {
            "trace": found.trace,
            "standard_error": finite(found.trace_standard_error),
            "probes": found.probes,
        }
        return {
            "hessian.largest": {"pyhessian": {"eigenvalues": list(found.eigenvalues)}},
            "hessian.trace": {"pyhessian": trace},
        }


def _late(found: Spectrum) -> list[str]:
    return [] if found.note is None else [found.note]


def _of_largest(found: Spectrum) -> Largest:
    """The largest eigenvalue of a spectrum that was computed without iteration."""
    from robaudit.curvature import Largest

    return Largest(found.largest[0], found.residuals[0], found.products, found.converged)


def _unconverged(found: Largest, tolerance: float) -> list[str]:
    if found.converged:
        return []
    return [
        f"after {found.products} products it is known to its residual only, which is more than "
        f"{tolerance:g} of it: {found.value:.4g} +- {found.residual:.2g}"
    ]
