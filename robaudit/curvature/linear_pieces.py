"""Operators whose composition is piecewise linear, so that second derivatives are zero."""

from __future__ import annotations

from collections.abc import Iterable

from robaudit.curvature.sweep import Node

# Operators that are piecewise linear in all inputs that depend on the layers.
_PIECES = frozenset(
    f"{name}Backward0"
    for name in (
        *("Relu", "LeakyRelu", "Threshold", "Hardtanh", "Abs", "Clamp"),
        *("ClampMin", "ClampMax", "Maximum", "Minimum", "Where", "MaskedFill", "Amax", "Amin"),
        *("MaxPool2DWithIndices", "MaxPool3DWithIndices", "AdaptiveMaxPool2D", "AvgPool2D"),
        *("AvgPool3D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "Mean", "Sum", "Add", "Sub"),
        *("Rsub", "Neg", "View", "UnsafeView", "ReshapeAlias", "Clone", "Permute", "Transpose"),
        *("T", "Expand", "Squeeze", "Unsqueeze", "Cat", "Stack", "Slice", "Select", "Index"),
        *("Split", "SplitWithSizes", "Unbind", "ConstantPadNd", "ToCopy", "PixelShuffle", "Flip"),
        *("UpsampleNearest2D", "Alias", "AsStrided", "Roll", "PreluKernel"),
    )
) | {f"{name}Backward1" for name in ("Mean", "Sum", "Squeeze", "Transpose", "AsStrided")}
# Products: linear if only one factor depends on the layers. Positions of the factors.
_PRODUCTS: dict[str, tuple[int, ...]] = {
    "ConvolutionBackward0": (0, 1),
    "AddmmBackward0": (1, 2),
    "MmBackward0": (0, 1),
    "BmmBackward0": (0, 1),
    "MulBackward0": (0, 1),
}


def linear_pieces(steps: Iterable[tuple[Node, tuple[int, ...]]]) -> bool:
    """Whether each operator of a graph is known to be piecewise linear.

    Their composition then is, too, on these images, and
    :func:`~robaudit.curvature.linearity.bent_layers` is not needed.

    Args:
        steps: see :meth:`robaudit.curvature.sweep.Sweep.steps`.
    """

    def linear(node: Node, places: tuple[int, ...]) -> bool:
        name = node.name()
        if name == "NativeBatchNormBackward0":
            return places == (0,) and not node._saved_training
        if name == "DivBackward0":
            return places == (0,)
        if name in _PRODUCTS:
            return sum(place in places for place in _PRODUCTS[name]) <= 1
        return name in _PIECES

    return all(linear(node, places) for node, places in steps)
