"""What has to be positive for an image to be certified: its margins over the other classes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from robaudit.certified.backward import Bounds, lower_bound
from robaudit.certified.branching import Branching
from robaudit.certified.nodes import Graph, Node
from robaudit.certified.products import Convolution
from robaudit.certified.propagation import crown, pieces, propagate, unit
from robaudit.certified.regions import Region
from robaudit.certified.search import Search

# Ascent steps for the bounds of hidden values, and for the margins.
_HIDDEN_STEPS, _MARGIN_STEPS = 6, 30
# Elements of the largest node in one batch of images.
_ELEMENTS = 2**17


@dataclass(frozen=True)
class Certifier:
    """A network prepared for bounds of its margins.

    Attributes:
        graph: in float64, on ``device``.
        linear: hidden values have linear bounds; without, intervals only.
    """

    graph: Graph
    device: torch.device
    linear: bool = True

    @cached_property
    def fast(self) -> Graph:
        """The same network in float32, for searches."""
        # Channels last: its transposed convolutions take a third of the time on CPUs.
        single = self.graph.to(torch.float32, self.device)
        return Graph(tuple(map(_channels_last, single.nodes)))

    @property
    def together(self) -> int:
        """Images in one batch of linear bounds."""
        return max(1, _ELEMENTS // max(math.prod(node.shape) for node in self.graph.nodes))

    @property
    def last(self) -> int:
        return len(self.graph.nodes) - 1

    @property
    def classes(self) -> int:
        return self.graph.nodes[self.last].shape[0]

    def margins(self, label: int) -> Tensor:
        """Coefficients of ``z_label - z_j`` for every other class ``j``: ``(k - 1, k)``."""
        identity = torch.eye(self.classes, dtype=torch.float64, device=self.device)
        others = torch.arange(self.classes, device=identity.device) != label
        return (identity[label] - identity)[others]

    def crown(self, region: Region, y: Tensor) -> Tensor:
        """Sound lower bounds ``(b, k - 1)`` of the margins of ``b`` images by CROWN."""
        bounds = propagate(self.graph, region, crown if self.linear else None)
        found = []
        for i, label in enumerate(y.tolist()):
            own = bounds.rows(slice(i, i + 1))
            found.append(lower_bound(own, {self.last: self.margins(label)}))
        return torch.stack(found)

    def raised(self, region: Region, label: int, lower: Tensor) -> tuple[Branching, Tensor]:
        """Bounds of one image's margins with optimised slopes, hidden values' bounds included.

        Args:
            lower: ``(k - 1,)``, the margins' bounds so far.

        Returns: branch and bound for the margins that are still open, and all margins' bounds.
        """
        tighten = self._optimised if self.linear else None
        exact = Search.of(propagate(self.graph, region, tighten), self.last)
        fast = exact.to(self.fast, torch.float32)
        forms = self.margins(label)
        opened = (lower <= 0).nonzero()[:, 0]
        a = forms[opened]
        start = fast.start(len(a))
        estimate, choices = fast.raised(a.float(), start, _MARGIN_STEPS)
        sound = exact.value(a, choices.double(), sound=True)
        lower = lower.clone()
        lower[opened] = torch.maximum(lower[opened], sound)
        slack = float((estimate.double() - sound).max())
        left = lower[opened] <= 0
        return Branching(a[left], exact, fast, choices.rows(left), 1.1 * slack + 1e-5), lower

    def _optimised(
        self, bounds: Bounds, node: int, owner: Tensor, element: Tensor, sign: int
    ) -> Tensor:
        """CROWN's bounds of elements of a node, on one image, with slopes optimised for each."""
        exact = Search.of(bounds, node)
        fast = exact.to(self.fast, torch.float32)
        plain, found = crown(bounds, node, owner, element, sign), []
        for piece in pieces(self.graph, len(element)):
            a = unit(bounds, node, element[piece], sign)
            start = fast.start(len(a))
            _, choices = fast.raised(a.float(), start, _HIDDEN_STEPS)
            found.append(exact.value(a, choices.double(), sound=True))
        return torch.maximum(plain, torch.cat(found))


def _channels_last(node: Node) -> Node:
    operator = node.operator
    if not isinstance(operator, Convolution) or operator.weight.dim() != 4:
        return node
    weight = operator.weight.contiguous(memory_format=torch.channels_last)
    return replace(node, operator=replace(operator, weight=weight))
