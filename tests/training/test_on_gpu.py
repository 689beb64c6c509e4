"""What training does to a batch and to the weights on a GPU: the CPU's numbers, and no waiting.

The GPU is pretended (``tests/support/pretended_gpu.py``): a mixture of devices is refused, and what
the processor would wait for is counted.
"""

import pytest
import torch
from support.pretended_gpu import GPU, on_gpu, pretended_gpu, waiting
from support.trained import net

from robaudit.training import At, EntropySGD, Mixup, Standard, Trades, WeightClip
from robaudit.training.augment import augment, cutout
from robaudit.training.extra_data import ExtraData
from robaudit.types import ThreatModel

LINF = ThreatModel("linf", 0.2)


def crops_and_cutout(model, x, y):
    return cutout(augment(x, 1, True), 2)


def mixup(model, x, y):
    return torch.cat([part.flatten() for part in Mixup(0.5)(x, y, 3, 7, None)])


def smoothed(model, x, y):
    return At(LINF, label_smoothing=0.1).loss(model, x, x, y).detach()


def extra(model, x, y):
    data = ExtraData(x[:6], y[:6], 0.5)
    return torch.cat([part for part, _ in data.batches(x, y, 8, None)])


def early_stop(kind):
    def run(model, x, y):
        return kind(LINF, 4, early_stop=1).examples(model, x, y)

    return run


def entropy_sgd(model, x, y):
    weights = list(model.parameters())
    optimizer, clip = EntropySGD(weights, 0.5, langevin=2, noise=0.1), WeightClip(0.1)
    for _ in range(3):
        optimizer.zero_grad()
        Standard()(model, x, y).backward()
        optimizer.step()
        clip.apply(model)
    optimizer.settle()
    return torch.cat([p.detach().flatten() for p in weights])


PIECES = {
    "crops and cutout": crops_and_cutout, "mixup": mixup, "smoothed labels": smoothed,
    "extra data": extra, "early stop": early_stop(At), "early stop, TRADES": early_stop(Trades),
    "Entropy-SGD and clipping": entropy_sgd,
}  # fmt: skip


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_of_training_has_the_cpus_numbers(name, task):
    x, y = task
    model = net().eval()
    torch.manual_seed(3)
    expected = PIECES[name](model, x, y)
    with pretended_gpu():
        model, there = on_gpu(net().eval()), (x.to(GPU), y.to(GPU))
        torch.manual_seed(3)
        with waiting() as counts:
            found = PIECES[name](model, *there)
        found = found.cpu()
    assert not counts
    assert torch.equal(found, expected)
