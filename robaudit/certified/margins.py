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
from robaudit.certified.pixels import PixelWeights, pixel_weights
from robaudit.certified.products import Convolution
from robaudit.certified.propagation import crown, narrowed, pieces, propagate, unit
from robaudit.certified.regions import Region
from robaudit.certified.search import CEILING, Search

# Ascent steps for the bounds of hidden values, of the last ones where a margin is assumed, and for
# the margins; and how often the last hidden values are bounded with an assumed margin.
_HIDDEN_STEPS, _ASSUMING_STEPS, _MARGIN_STEPS = 6, 15, 30
_ROUNDS = 2
# Elements of the largest node in one batch of images, by type of device.
_ELEMENTS = {"cpu": 2**12, "cuda": 2**22}


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

    @cached_property
    def weights(self) -> dict[int, PixelWeights]:
        """Of the first ReLUs on the input."""
        return pixel_weights(self.graph, torch.zeros((), dtype=torch.float64, device=self.device))

    @property
    def together(self) -> int:
        """Images in one batch of linear bounds."""
        most = _ELEMENTS.get(self.device.type, _ELEMENTS["cpu"])
        return max(1, most // max(math.prod(node.shape) for node in self.graph.nodes))

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

    def raised(self, region: Region, label: int, lower: Tensor) -> tuple[list[Branching], Tensor]:
        """Bounds of one image's margins with optimised slopes, hidden values' bounds included.

        Args:
            lower: ``(k - 1,)``, the margins' bounds so far.

        Returns: branch and bound for each margin that is still open, and all margins' bounds.
        """
        exact = self._search(propagate(self.graph, region, self._optimised), self.last)
        forms, lower, branchings = self.margins(label), lower.clone(), []
        opened = (lower <= 0).nonzero()[:, 0]
        lower[opened] = torch.maximum(lower[opened], self._raised(exact, forms[opened])[0])
        for row in (lower <= 0).nonzero()[:, 0].tolist():
            margin = forms[row : row + 1]
            narrow = self._assuming(exact.bounds, margin)
            if narrow is None:  # no input has such a margin
                lower[row] = CEILING
                continue
            assuming = self._search(narrow, self.last)
            sound, branching = self._raised(assuming, margin)
            lower[row] = torch.maximum(lower[row], sound[0].clamp(max=CEILING))
            if lower[row] <= 0:
                branchings.append(replace(branching, lower=lower[row : row + 1]))
        return branchings, lower

    def _search(self, bounds: Bounds, node: int, margin: Tensor | None = None) -> Search:
        return Search.of(bounds, node, self.weights, margin)

    def _raised(self, exact: Search, a: Tensor) -> tuple[Tensor, Branching]:
        """Sound bounds ``(p,)`` of margins with optimised slopes; and their branch and bound."""
        fast = exact.to(self.fast, torch.float32)
        estimate, choices = fast.raised(a.float(), fast.start(len(a)), _MARGIN_STEPS)
        sound = exact.value(a, choices.double(), sound=True)
        slack = float((estimate.double() - sound).max())
        return sound, Branching(a, sound, exact, fast, choices, 1.1 * slack + 1e-5)

    def _assuming(self, bounds: Bounds, margin: Tensor) -> Bounds | None:
        """Tighter bounds of the last hidden values, for the inputs that an attack would look for.

        They hold where the margin is at most ``CEILING``, so that all bounds that rest on them do:
        if then the margin is found to be larger, there is no such input. The assumption enters as a
        Lagrange multiplier. ``None`` if it contradicts itself.

        Source: Kotha et al., "Provably bounding neural network preimages", NeurIPS 2023.
        """
        for _ in range(_ROUNDS):
            relus = self._search(bounds, self.last).relus
            if not relus:
                break
            source = max(relus)
            exact = self._search(bounds, source, margin)
            element = exact.positions[relus[source]]
            low, high = (
                sign * self._searched(exact, element, sign, _ASSUMING_STEPS) for sign in (1, -1)
            )
            bounds = narrowed(bounds, source, element, low, high)
            if (bounds.lower[source] > bounds.upper[source]).any():
                return None
        return bounds

    def _optimised(
        self, bounds: Bounds, node: int, owner: Tensor, element: Tensor, sign: int
    ) -> Tensor:
        """CROWN's bounds of elements of a node, on one image, with slopes optimised for each."""
        plain = crown(bounds, node, owner, element, sign)
        exact = self._search(bounds, node)
        return torch.maximum(plain, self._searched(exact, element, sign, _HIDDEN_STEPS))

    def _searched(self, exact: Search, element: Tensor, sign: int, steps: int) -> Tensor:
        """Sound lower bounds of ``sign * value`` for elements of a search's node."""
        # Neighbours depend on the same elements of the first layer.
        order = (element % math.prod(exact.bounds.graph.nodes[exact.node].shape[1:])).argsort()
        found = torch.empty_like(element, dtype=torch.float64)
        weights = max([0, *(hull.weight.numel() for hull in exact.hulls.values())])
        for piece in pieces(exact.bounds, len(element), weights // 4):
            a = unit(exact.bounds, exact.node, element[order[piece]], sign)
            near = exact.seen(a)
            fast = near.to(self.fast, torch.float32)
            _, choices = fast.raised(a.float(), fast.start(len(a)), steps)
            found[order[piece]] = near.value(a, choices.double(), sound=True)
        return found


def _channels_last(node: Node) -> Node:
    operator = node.operator
    if not isinstance(operator, Convolution) or operator.weight.dim() != 4:
        return node
    weight = operator.weight.contiguous(memory_format=torch.channels_last)
    return replace(node, operator=replace(operator, weight=weight))
