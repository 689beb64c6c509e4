"""What ``robaudit landscape`` cuts: its options, and which of them go together."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robaudit.errors import UsageError
from robaudit.request import Count, Spec


class Cut(Spec):
    """What is cut."""

    space: Literal["weights", "input"] = Field(
        default="weights",
        description="weights: around the network. input: around images, sign of the gradient "
        "against random signs.",
    )
    directions: Literal["random", "adversarial"] = Field(
        default="random",
        description="Around one network: random, or the worst that the worst case of flatness "
        "finds; over a plane that one against a random one.",
    )
    dimensions: Annotated[int, Field(ge=1, le=2)] = Field(
        default=1, description="1: along lines. 2: over a plane."
    )
    compare: bool = Field(
        default=False,
        description="Several checkpoints, each in directions of its own, in one figure.",
    )
    trajectory: bool = Field(
        default=False,
        description="Checkpoints of one run: the plane in which they moved most, with their path.",
    )
    normalize_by: Literal["layer", "filter"] = Field(
        default="layer",
        description="layer: s = 1 moves every parameter tensor by its own norm. filter: every "
        "filter.",
    )
    points: int | None = Field(
        default=None,
        description="Places along each axis, an odd number. [default: 21, over a plane 11]",
    )
    repeats: Count = Field(default=3, description="Directions whose mean is shown.")
    reach: float | None = Field(
        default=None,
        description="From minus this to this, around one network or image. [default: 1; in "
        "adversarial directions 0.05; around images twice the threat model's radius]",
    )
    example: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="One image, by its place in the data, instead of the mean over --n.",
    )

    @property
    def usual_reach(self) -> float:
        """Around a network; at 1 an adversarial direction has losses of thousands of nats."""
        return 1 if self.directions == "random" else 0.05

    @property
    def places(self) -> int:
        """Along each axis."""
        plane = self.dimensions == 2 or self.trajectory
        return self.points if self.points is not None else (11 if plane else 21)

    def check(self, count: int, n: int | None) -> None:
        """Refuse options that do not go together, for ``count`` checkpoints and ``n`` examples."""
        if self.space == "input" and (count > 1 or self.compare):
            raise UsageError(
                f"--space input takes one checkpoint, not {count}", "Run it once for each."
            )
        if self.trajectory and (self.space == "input" or self.compare):
            raise UsageError(
                "--trajectory is a plane in weight space through the checkpoints of one run",
                "Leave --compare and --space out.",
            )
        if self.trajectory and count < 3:
            few = "one" if count == 1 else "two"
            raise UsageError(
                f"--trajectory takes three checkpoints or more of one run, not {few}",
                "Two without it give the line between them.",
            )
        if self.compare and (count < 2 or self.dimensions == 2):
            raise UsageError(
                "--compare lays lines of several checkpoints over each other",
                "Give two checkpoints or more, and no --dimensions 2.",
            )
        if count > 3 and not (self.compare or self.trajectory):
            raise UsageError(
                f"a line goes through two checkpoints and a plane through three, not {count}",
                "With --compare each has directions of its own, with --trajectory they are a path.",
            )
        if count == 2 and self.dimensions == 2:
            raise UsageError("a plane goes through three checkpoints, not 2", "Give one more.")
        if self.directions == "adversarial" and (
            self.space == "input" or (count > 1 and not self.compare)
        ):
            raise UsageError(
                "--directions is for cuts around one network, in weight space",
                "With --compare each of several networks has its own.",
            )
        if count > 1 and not self.compare and self.reach is not None:
            raise UsageError(
                "--range is for directions: a line or plane goes as far beyond its checkpoints as "
                "--points has room",
                "Leave it out.",
            )
        if self.example is not None and self.space != "input":
            raise UsageError(
                "--example is for --space input", "In weight space --n 1 takes the first example."
            )
        if self.example is not None and n is not None:
            raise UsageError("--example is one image and --n several", "Leave one of them out.")

    def through(self, count: int) -> Literal["directions", "checkpoints", "path", "images"]:
        """What the cut goes through: checkpoints, their path, directions of each, or images."""
        if self.space == "input":
            return "images"
        if self.trajectory:
            return "path"
        return "checkpoints" if count > 1 and not self.compare else "directions"
