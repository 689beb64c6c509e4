"""Exact minima of small networks' margins, by enumeration of ReLU patterns."""

import itertools
from fractions import Fraction

import numpy as np
from scipy.optimize import linprog


def exact_margin(weights, low, high, label):
    """The minimum of ``z_label - max z_j`` over a box, of ``[(W1, b1), (W2, b2)]`` with one ReLU.

    For each pattern of signs the network is affine on a polytope: one linear program for each
    pattern and each other class.
    """
    (first, shift), (last, bias) = weights
    smallest = np.inf
    for pattern in itertools.product((0.0, 1.0), repeat=len(first)):
        on = np.array(pattern)
        sides = np.where(on > 0, -1.0, 1.0)
        slope = last @ (first * on[:, None])
        constant = last @ (shift * on) + bias
        for other in range(len(last)):
            if other == label:
                continue
            found = linprog(
                slope[label] - slope[other],
                A_ub=sides[:, None] * first,
                b_ub=-sides * shift,
                bounds=list(zip(low, high, strict=True)),
            )
            if found.status == 0:
                smallest = min(smallest, found.fun + constant[label] - constant[other])
    return smallest


def in_fractions(weights, x):
    """Logits of the network at a point, without any rounding."""
    values = [Fraction(float(v)) for v in x]
    for depth, (weight, bias) in enumerate(weights):
        values = [
            sum((Fraction(float(w)) * v for w, v in zip(row, values, strict=True)), Fraction(b))
            for row, b in zip(weight.tolist(), bias.tolist(), strict=True)
        ]
        if depth < len(weights) - 1:
            values = [max(v, Fraction(0)) for v in values]
    return values
