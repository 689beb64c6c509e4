"""Options of the measuring commands beside the common ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robaudit.audit.probe import Layers
from robaudit.audit.probes import Pgd
from robaudit.audit.probes.hessian import HessianEngine
from robaudit.cli.options import Settings
from robaudit.errors import UsageError
from robaudit.protocols import Protocol
from robaudit.request import Count, Spec
from robaudit.types import Estimator, Operator, TrainingLoss, parse_bytes


class PgdOptions(Spec):
    """The PGD behind a measurement."""

    steps: Count = Field(default=20, description="Steps of PGD.")
    restarts: Count = Field(default=1, description="Random starts of PGD.")
    step_size: float | None = Field(default=None, description="Step of PGD. [default: eps / 4]")

    def check(self) -> None:
        """Refuse a step size that is not positive.

        Raises:
            UsageError: it is zero or negative.
        """
        if self.step_size is not None and not self.step_size > 0:
            message = f"step_size must be positive, not {self.step_size:g}"
            raise UsageError(message, field="step_size")

    def step(self, settings: Settings, checkpoints: list[str]) -> float:
        """The step size in units of eps, as plans have it."""
        self.check()
        if self.step_size is None:
            return 0.25
        from robaudit.session import threat_of
        from robaudit.session.which_data import with_data

        return self.step_size / threat_of(with_data(settings, checkpoints), checkpoints).eps

    def probe(self, settings: Settings, checkpoints: list[str]) -> Pgd:
        """The plan's PGD."""
        return Pgd(self.steps, self.restarts, self.step(settings, checkpoints))


class WeightOptions(Spec):
    """Which weights, and how much memory."""

    layers: str | None = Field(
        default=None,
        description="Which weights: layers named as in the report's layer table or parameters "
        "(conv1.bias, attention.in_proj_weight), separated by commas; all for every parameter, "
        "biases, norm scales and embeddings included. [default: weights of convolutions, linear "
        "layers and attention projections]",
    )
    memory: str | None = Field(
        default=None,
        description="Memory that may be used beside the network, by estimate. [default: what is "
        "fast]",
    )

    @property
    def chosen(self) -> Layers:
        """The layers, as probes have them."""
        if self.layers is None or self.layers.strip() == "all":
            return "all" if self.layers else None
        names = tuple(name.strip() for name in self.layers.split(",") if name.strip())
        if not names:
            raise UsageError(
                "layers names no layer", "Name one, or leave the option out.", field="layers"
            )
        return names

    @property
    def budget(self) -> int | None:
        """The memory in bytes."""
        return None if self.memory is None else parse_bytes(self.memory)


class TraceOptions(Spec):
    """How layer traces are computed."""

    estimator: Estimator = Field(
        default="auto",
        description="exact: Gauss-Newton traces, the Hessian's on piecewise linear networks. "
        "gauss-newton: probes for the same, for many classes. hessian: unbiased probes for smooth "
        "networks. auto: whichever gives the Hessian's.",
    )
    probes: Count = Field(
        default=1, description="Probes per example, for gauss-newton and hessian."
    )


class TermOptions(Spec):
    """Constants of the top layer's trace and of the PAC-Bayes terms."""

    objective: TrainingLoss = Field(
        default="at", description="Training loss of the top layer's trace."
    )
    penalty: float | None = Field(
        default=None,
        description="Weight of that loss's second part. [default: 6 for trades and mart, 1 for "
        "alp]",
    )
    beta: float | None = Field(
        default=None,
        description="beta of the PAC-Bayes terms. [default: the training split's size]",
    )
    s0: float | None = Field(
        default=None,
        description="Standard deviation of their prior. [default: d^-1/2, d numbers an image]",
    )
    lambda_: float | None = Field(
        default=None,
        description="lambda in sqrt(2 / lambda) WCI. [default: the training split's size]",
    )


class FlatnessOptions(Spec):
    """How the weights are moved."""

    xi: str = Field(
        default="0.5",
        description="Relative radius of the random weight changes; several give a table over "
        "radii.",
    )
    perturbations: Count = Field(
        default=10, description="Random weight changes; 0.5 and 10 are the paper's."
    )
    tolerance: float | None = Field(
        default=None,
        description="Stop drawing weight changes once the standard error is below this, after five "
        "at the earliest. [default: draw them all]",
    )
    ball: bool = Field(
        default=False, description="Draw weight changes inside the ball, not on its surface."
    )
    worst_xi: str = Field(
        default="0.00075",
        description="Relative radius of the worst-case weight change; several give a table over "
        "them",
    )
    worst_restarts: Count = Field(default=10, description="Restarts of the search for it.")
    protocol: Protocol = Field(
        default="default",
        description="stutz2021, as the published code: ten random starts of PGD for the "
        "unperturbed network, one for the perturbed; steps of 0.007 at eps 8/255; the worst case "
        "steps after each 128 images and counts where it ends. stutz2021-text, as the paper: each "
        "128 images have a worst case of their own.",
    )
    clean: bool = Field(default=False, description="Also the flatness of the loss on clean images.")
    eigenvalue: bool = Field(
        default=False, description="Also the largest eigenvalue of the Hessian."
    )

    def radii(self, name: Literal["xi", "worst_xi"]) -> tuple[float, ...]:
        """The radii of a field in ascending order, no two alike."""
        text = getattr(self, name)
        try:
            return tuple(sorted({float(part) for part in text.split(",")}))
        except ValueError:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{name} {text}: not a list of numbers",
                f"Write it as {option} 0.1,0.25,0.5.",
                field=name,
            ) from None


class LanczosOptions(Spec):
    """How the spectrum is computed."""

    top: Count = Field(default=5, description="Largest eigenvalues.")
    probes: Count = Field(default=3, description="Start vectors for trace and density.")
    lanczos_steps: Annotated[int, Field(ge=2)] = Field(
        default=80, description="Hessian products at most, for the eigenvalues."
    )
    tolerance: Annotated[float, Field(ge=0)] = Field(
        default=1e-3, description="Residual, relative to the eigenvalue, to stop at."
    )
    operator: Operator = Field(
        default="hessian",
        description="gauss-newton: its positive part, without the curvature of the network itself; "
        "of few examples its whole spectrum.",
    )


class SpectrumOptions(Spec):
    """What is measured beside the spectrum."""

    spread_probes: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="Probes for the standard deviation of each layer's eigenvalues, two or more; "
        "each costs a pass per layer.",
    )
    engine: HessianEngine = Field(
        default="robaudit",
        description="pyhessian: show that library's trace and largest eigenvalue as well.",
    )
