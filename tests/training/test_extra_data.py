"""Extra data: what a batch is made of, how long an epoch is, and that it is trained on."""

import pytest
import torch

from robaudit.training.extra_data import ExtraData
from robaudit.training.loop import run_epoch


def numbered(first, n):
    """Images whose pixel is their number, with the number as their label."""
    y = torch.arange(first, first + n)
    return y.float().reshape(-1, 1, 1, 1), y


@pytest.mark.parametrize(("share", "m"), [(0.5, 4), (0.3, 2), (0.9, 7)])
@pytest.mark.parametrize("n", [20, 24, 3])
def test_each_batch_has_its_part_of_both(n, share, m):
    extra = ExtraData(*numbered(100, 6), share)
    draw = torch.Generator().manual_seed(0)
    batches = list(extra.batches(*numbered(0, n), 8, draw))
    assert len(batches) == -(-n // 8)
    own = torch.cat([y[y < 100] for _, y in batches])
    assert len(own.unique()) == len(own)  # no example twice
    for x, y in batches[:-1]:
        assert int((y >= 100).sum()) == m
        assert int((y < 100).sum()) == 8 - m
        assert torch.equal(x.flatten(), y.float())
    assert len(batches[-1][1]) <= 8


def test_all_extra_examples_and_all_of_the_training_set_are_drawn_in_time():
    extra, draw = ExtraData(*numbered(100, 6)), torch.Generator().manual_seed(0)
    seen = torch.cat([y for _ in range(12) for _, y in extra.batches(*numbered(0, 20), 8, draw)])
    assert seen.unique().tolist() == [*range(20), *range(100, 106)]


def test_the_mean_loss_is_that_of_all_images_in_the_batches():
    extra, seen = ExtraData(*numbered(100, 6)), []
    weight = torch.zeros(1, requires_grad=True)

    def descend(x, y):
        weight.grad = torch.ones(1)
        seen.append(y)
        return y.float().mean()

    done = run_epoch(
        *numbered(0, 20), descend, torch.optim.SGD([weight], 1.0),
        torch.Generator().manual_seed(0), batch_size=8, extra=extra,
    )  # fmt: skip
    labels = torch.cat(seen)
    assert done.images == len(labels) == 24
    assert done.loss == pytest.approx(float(labels.float().mean()), rel=1e-6)
