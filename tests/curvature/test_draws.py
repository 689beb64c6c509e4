"""A network that draws at random has no one function of its weights: nothing of it is measured."""

import pytest
import torch
from torch import nn

from robaudit import curvature, flatness
from robaudit.errors import NotMeasuredError
from robaudit.types import ThreatModel


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(x.flatten(1) + 0.1 * torch.randn(len(x), 16))


THREAT = ThreatModel("linf", 0.1)
MEASURES = {
    "wci": lambda *data: curvature.wci(*data),
    "traces": lambda *data: curvature.layer_traces(*data),
    "spreads": lambda *data: curvature.layer_spreads(*data),
    "spectrum": lambda *data: curvature.spectrum(*data),
    "small spectrum": lambda *data: curvature.small_spectrum(*data[:2]),
    "largest eigenvalue": lambda *data: curvature.largest_eigenvalue(*data),
    "gram spectrum": lambda *data: curvature.gram_spectrum(*data[:2]),
    "top layer": lambda model, x, y: curvature.top_layer_trh(model, x, x, y),
    "average flatness": lambda *data: flatness.average(*data, THREAT),
    "worst-case flatness": lambda *data: flatness.worst(*data, THREAT),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_single_draws_are_not_measured(measure):
    torch.manual_seed(0)
    data = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    with pytest.raises(NotMeasuredError, match="draws at random"):
        MEASURES[measure](Noisy().eval(), *data)
