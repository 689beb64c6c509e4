"""Flatness of the robust loss in weight space: average case and worst case.

A *layer* here is one parameter tensor; weights and biases each have their own relative ball,
normalisation parameters are left out, tensors of zero norm are left alone. Perturbed networks are
evaluated without ever writing to the model's own parameters.
"""

from robaudit.flatness.average import AverageFlatness, average
from robaudit.flatness.worst import WorstFlatness, worst

__all__ = ["AverageFlatness", "WorstFlatness", "average", "worst"]
