"""Flatness of the robust loss in weight space: average case and worst case.

A *layer* here is one parameter tensor. Weights and biases each have their own relative ball;
normalisation parameters and tensors of zero norm are not perturbed. The model's own parameters are
never written to.

Adaptive sharpness moves every parameter, in proportion to its size.

A *landscape* is the loss over a family of networks: around one, along directions scaled to its
weights, or between several.
"""

from robaudit.flatness.adaptive import AdaptiveSharpness, adaptive_average, adaptive_worst
from robaudit.flatness.average import AverageFlatness, average
from robaudit.flatness.directions import adversarial_direction, normalized, random_direction
from robaudit.flatness.families import around, between
from robaudit.flatness.input_surface import input_surface
from robaudit.flatness.landscape import (
    Adversary,
    Slice,
    Surface,
    landscape,
    landscape_plane,
    mean_and_error,
    places_between,
    symmetric_places,
)
from robaudit.flatness.trajectory import Trajectory, places_along, trajectory
from robaudit.flatness.worst import WorstFlatness, worst

__all__ = [
    "AdaptiveSharpness",
    "Adversary",
    "AverageFlatness",
    "Slice",
    "Surface",
    "Trajectory",
    "WorstFlatness",
    "adaptive_average",
    "adaptive_worst",
    "adversarial_direction",
    "around",
    "average",
    "between",
    "input_surface",
    "landscape",
    "landscape_plane",
    "mean_and_error",
    "normalized",
    "places_along",
    "places_between",
    "random_direction",
    "symmetric_places",
    "trajectory",
    "worst",
]
