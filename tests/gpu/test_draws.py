"""Draws on a GPU are those of the CPU, also inside a CUDA graph."""

import pytest
import torch

from robaudit.engine.philox import normal, signs, uniform, words
from robaudit.engine.projections import random_start
from robaudit.types import ThreatModel

pytestmark = pytest.mark.gpu
KEY = (0xA4093822, 0x299F31D0)
EXAMPLE = torch.tensor([0, 5, 2**32 + 7, 2**40, *range(100, 160)])


@pytest.mark.parametrize("draw", [words, uniform, signs])
def test_the_same_numbers(draw):
    assert torch.equal(draw(KEY, EXAMPLE.cuda(), 3, 3073).cpu(), draw(KEY, EXAMPLE, 3, 3073))


def test_normal_draws_agree_to_the_last_bit_or_so():
    found, wanted = normal(KEY, EXAMPLE.cuda(), 3, 3073).cpu(), normal(KEY, EXAMPLE, 3, 3073)
    torch.testing.assert_close(found, wanted, rtol=2**-22, atol=0)
    assert float((found != wanted).float().mean()) < 1e-3


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_starting_points_agree(norm):
    x, threat = torch.full((64, 3, 8, 8), 0.4), ThreatModel(norm, 0.3)
    found = random_start(x.cuda(), EXAMPLE, threat, 0, 1)
    torch.testing.assert_close(found.cpu(), random_start(x, EXAMPLE, threat, 0, 1))


@pytest.mark.parametrize("draw", [words, uniform, normal, signs])
def test_a_graph_draws_for_the_query_that_its_tensor_holds(draw):
    example, query = EXAMPLE.cuda(), torch.zeros((), dtype=torch.long, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        draw(KEY, example, query, 9)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn = draw(KEY, example, query, 9)
    for number in (0, 1, 2**32 - 1):
        query.fill_(number)
        graph.replay()
        assert torch.equal(drawn, draw(KEY, example, number, 9))
