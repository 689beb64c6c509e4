"""The plane of a run's checkpoints: numpy's singular values, and the checkpoints themselves."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import robaudit as ra
from robaudit.engine import effective
from robaudit.errors import UsageError
from robaudit.flatness import Adversary, landscape_plane, places_along, trajectory


def network(seed, width=3, norm=nn.BatchNorm2d):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, width, 3), norm(width), nn.ReLU(), nn.Flatten(), nn.Linear(width * 9, 4)
    )
    net(torch.rand(32, 1, 5, 5) * (1 + seed))  # running statistics of its own
    return net.eval()


def flat(model):
    return torch.cat([p.detach().flatten() for p in effective(model).parameters()]).double()


@pytest.mark.parametrize("many", [3, 6])
def test_components_are_numpys_singular_vectors(many):
    models = [network(seed) for seed in range(many)]
    found = trajectory(models)
    weights = torch.stack([flat(model) for model in models]).numpy()
    rows = weights[:-1] - weights[-1]
    u, sigma, vt = np.linalg.svd(rows, full_matrices=False)
    theirs = u[:, :2] * sigma[:2]
    places = found.places.numpy()
    assert places[-1].tolist() == [0, 0]
    np.testing.assert_allclose(np.abs(places[:-1]), np.abs(theirs), rtol=1e-9, atol=1e-9)
    assert places[0, 0] < 0
    assert found.shares == pytest.approx(sigma[:2] ** 2 / (sigma**2).sum(), rel=1e-9)
    left = rows - theirs @ vt[:2]
    share = np.linalg.norm(left, axis=1) / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(found.off_plane[:-1].numpy(), share, atol=1e-6)
    # A step along an axis is one unit of the weights' norm in that direction.
    step = (flat_of(found.family([2.0, -1.0]), models[0]) - torch.from_numpy(weights[-1])).numpy()
    signs = np.sign((places[:-1] * theirs).sum(0))
    np.testing.assert_allclose(step, 2 * signs[0] * vt[0] - signs[1] * vt[1], atol=1e-5)


def flat_of(tensors, model):
    names = [name for name, _ in model.named_parameters()]
    return torch.cat([tensors[name].flatten() for name in names]).double()


def test_three_checkpoints_are_in_their_plane():
    """With parameters and running statistics, so that the losses there are theirs."""
    models = [network(seed) for seed in range(3)]
    found = trajectory(models)
    assert float(found.off_plane.max()) < 1e-6
    x, y = torch.rand(12, 1, 5, 5), torch.arange(12) % 4
    threat, s, t = ra.ThreatModel("linf", 0.1), found.places[:, 0], found.places[:, 1]
    how = Adversary(steps=3)
    surface = landscape_plane(models[-1], found.family, s, t, x, y, threat, adversary=how)
    for at, model in enumerate(models):
        clean = F.cross_entropy(model(x), y, reduction="none")
        robust = ra.attacks.pgd(model, x, y, threat, steps=3).loss
        torch.testing.assert_close(surface.clean[at, at].float(), clean, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(surface.robust[at, at].float(), robust, atol=2e-4, rtol=2e-4)
        state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        for name, tensor in found.family(found.places[at].tolist()).items():
            torch.testing.assert_close(tensor, state[name].detach(), atol=1e-5, rtol=1e-5)


def test_weights_are_those_of_a_pass():
    def normed(seed):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(4, 3)))
        with torch.no_grad():  # other factors of the same product change nothing
            net[1].parametrizations.weight.original1.mul_(2.0 + seed)
        return net

    models = [normed(seed) for seed in range(4)]
    plain = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in models]
    for own, model in zip(plain, models, strict=True):
        own[1].weight.data, own[1].bias.data = model[1].weight.detach(), model[1].bias.detach()
    torch.testing.assert_close(trajectory(models).places, trajectory(plain).places, atol=1e-5,
                               rtol=1e-5)  # fmt: skip


def test_what_has_no_plane():
    a, b = network(0), network(1)
    middle = network(2)
    with torch.no_grad():
        for mixed, first, second in zip(*(m.parameters() for m in (middle, a, b)), strict=True):
            mixed.copy_((first + second) / 2)
    for models in ([a, middle, b], [a, a, a]):
        with pytest.raises(UsageError, match="on one line"):
            trajectory(models)
    for models in ([a], [a, b]):
        with pytest.raises(UsageError, match=f"or more, not {len(models)}"):
            trajectory(models)
    for other in (network(2, width=4), network(2, norm=nn.InstanceNorm2d)):
        with pytest.raises(UsageError, match="different architectures"):
            trajectory([a, b, other])


def test_places_cover_the_path():
    places = places_along(torch.tensor([-3.0, 1.0, 0.5]), 5, margin=0.25)
    assert places.tolist() == pytest.approx([-4, -2.5, -1, 0.5, 2])
