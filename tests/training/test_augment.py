"""Augmentation of batches, against its definitions written out and torchvision's mixup."""

import sys

import pytest
import torch
from torch.nn import functional as F

from robaudit.errors import UsageError
from robaudit.training import At, Mart, Standard, Trades, kl_divergence
from robaudit.training.augment import Augmentation, augment, brightened, cutout
from robaudit.training.autoaugment import AutoAugment
from robaudit.training.mixup import Mixup
from robaudit.types import ThreatModel

LINF = ThreatModel("linf", 0.1)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_cutout_hides_one_square_around_any_pixel_and_cuts_off_what_lies_outside(side):
    x = torch.rand(300, 2, 4, 5, generator=draw()) + 0.1
    found = cutout(x, side, draw(1))
    squares = []
    for row in range(4):
        for column in range(5):
            square = torch.zeros(4, 5, dtype=torch.bool)
            top, left = row - side // 2, column - side // 2
            square[max(top, 0) : top + side, max(left, 0) : left + side] = True
            squares.append(square)
    hidden = found == 0
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    hits = (hidden[:, :1] == torch.stack(squares)).all((2, 3))
    assert (hits.sum(1) >= 1).all()
    assert hits.any(0).all()  # each centre is drawn among 300, all but surely
    assert torch.equal(found[~hidden], x[~hidden])


@pytest.mark.parametrize("most", [0.3, 1.0])
def test_brightness_is_torchvisions_with_one_factor_for_each_image(most):
    adjust = pytest.importorskip("torchvision.transforms.functional").adjust_brightness
    x = torch.rand(400, 3, 4, 5, generator=draw())
    found = brightened(x, most, draw(1))
    factors = [float(image[k] / given[k]) for image, given, k in (
        (image.flatten(), given.flatten(), int(given.argmin()))
        for image, given in zip(found, x, strict=True)
    )]  # fmt: skip
    expected = torch.stack([adjust(i, f) for i, f in zip(x, factors, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    low, high = min(factors), max(factors)
    assert 1 - most <= low + 1e-5 < 1 - 0.9 * most
    assert 1 + 0.9 * most < high - 1e-5 <= 1 + most
    assert float(torch.tensor(factors).mean()) == pytest.approx(1, abs=4 * most / 3**0.5 / 20)
    assert torch.equal(Augmentation(brightness=most)(x, x, 2, 0, draw(1))[0], found)


def test_mixup_is_torchvisions_for_the_same_share_and_partners(monkeypatch):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    x, y = torch.rand(6, 3, 4, 4, generator=draw()), torch.tensor([0, 1, 2, 3, 1, 2])
    share = Mixup(0.7).share(5)
    peer = v2.MixUp(alpha=0.7, num_classes=4)
    monkeypatch.setattr(torch, "_sample_dirichlet", lambda alpha: torch.tensor([share, 1 - share]))
    expected_x, expected_y = peer(x, y)  # it mixes each image with the one before
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n).roll(1))
    mixed, targets = Mixup(0.7)(x, y, 4, 5, draw())
    torch.testing.assert_close(mixed, expected_x)
    torch.testing.assert_close(targets, expected_y)


def test_shares_of_mixup_have_the_moments_of_the_beta_distribution():
    shares = torch.tensor([Mixup(0.5).share(seed) for seed in range(4000)])
    assert float(shares.mean()) == pytest.approx(0.5, abs=4 * 0.3536 / 4000**0.5)
    assert float(shares.var()) == pytest.approx(1 / 8, rel=0.05)  # 1 / (4 (2 alpha + 1))


def test_mixed_targets_have_the_mixed_cross_entropy_in_the_loss_and_in_the_attack():
    logits = torch.randn(6, 3, generator=draw(), dtype=torch.float64)
    x, y = torch.rand(6, 1, 2, 2, dtype=torch.float64, generator=draw()), torch.arange(6) % 3
    partner = torch.randperm(6, generator=draw(3))
    share = Mixup(1.0).share(7)
    mixed, targets = Mixup(1.0)(x, y, 3, 7, draw(3))
    torch.testing.assert_close(mixed, share * x + (1 - share) * x[partner])
    first, second = (F.cross_entropy(logits, who, reduction="none") for who in (y, y[partner]))
    expected = share * first + (1 - share) * second

    def network(images):
        return logits

    torch.testing.assert_close(Standard().loss(network, x, x, targets), expected.mean())
    ascended = At(LINF).ascended(network, x, targets)
    torch.testing.assert_close(ascended(x), expected.sum())


def test_smoothed_labels_are_torchs_and_the_attack_has_none():
    logits = torch.randn(6, 3, generator=draw(), dtype=torch.float64)
    y = torch.arange(6) % 3
    peer = torch.nn.CrossEntropyLoss(label_smoothing=0.2)(logits, y)
    targets = 0.8 * F.one_hot(y, 3) + 0.2 / 3
    by_hand = -(targets * logits.log_softmax(1)).sum(1).mean()
    x = torch.zeros(6, 1, 1, 1)
    plain, smoothed = At(LINF), At(LINF, label_smoothing=0.2)
    found = smoothed.loss(lambda _: logits, x, x, y)
    torch.testing.assert_close(found, peer)
    torch.testing.assert_close(found, by_hand)
    trades = Trades(LINF, penalty=2.0, label_smoothing=0.2)
    passes = iter([logits, 2 * logits])
    torch.testing.assert_close(
        trades.loss(lambda _: next(passes), x, x, y),
        by_hand + 2 * kl_divergence(logits, 2 * logits) / 6,
    )
    both = [which.ascended(lambda _: logits, x, y)(x) for which in (plain, smoothed)]
    assert torch.equal(*both)
    with pytest.raises(UsageError, match="no smoothed labels"):
        Mart(LINF, label_smoothing=0.1)


def test_without_cutout_and_mixup_the_draws_are_those_of_crops_and_mirror_images():
    x, y = torch.rand(8, 1, 6, 6, generator=draw()), torch.arange(8)
    found, targets = Augmentation(pad=2, flip=True)(x, y, 8, 0, draw(1))
    assert torch.equal(found, augment(x, 2, True, draw(1)))
    assert targets is y


def test_a_square_larger_than_the_image_is_refused():
    with pytest.raises(UsageError, match="cutout = 5: the images have 4 x 6 pixels"):
        Augmentation(cutout=5).check((1, 4, 6))
    Augmentation(cutout=4).check((1, 4, 6))


def test_autoaugment_is_torchvisions_image_by_image_on_eight_bits():
    transforms = pytest.importorskip("torchvision.transforms")
    x = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=draw())
    peer = transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10)
    torch.manual_seed(0)
    expected = torch.stack([peer(image) for image in x]).float() / 255
    torch.manual_seed(0)
    found = AutoAugment.for_cifar10()(x.float() / 255)
    assert torch.equal(found, expected)
    assert (found != x.float() / 255).flatten(1).any(1).sum() > 2
    grey = AutoAugment.for_cifar10()(x[:, :1].float() / 255)
    assert grey.shape == (12, 1, 8, 8)
    with pytest.raises(UsageError, match="not 2 channels"):
        Augmentation(policy=AutoAugment.for_cifar10()).check((2, 4, 4))


def test_without_torchvision_autoaugment_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.transforms", None)
    with pytest.raises(UsageError, match="torchvision is not installed"):
        AutoAugment.for_cifar10()
