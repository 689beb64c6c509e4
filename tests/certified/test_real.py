"""Certificates of published checkpoints against another computation and against attacks."""

import os
from pathlib import Path

import numpy as np
import pyautoattack
import pytest
import torch
from scipy import sparse
from torch.nn.functional import conv2d

from robaudit import ThreatModel, load, load_examples
from robaudit.attacks import fast, pgd
from robaudit.certified import certified_radii, certify

FOLDER = os.environ.get("ROBAUDIT_REAL_DATA")
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="ROBAUDIT_REAL_DATA is not set"),
]
NETWORKS = Path(__file__).parents[1] / "support" / "published_networks.py"
CIFAR, MNIST = "cifar10_test_first1017.npz", "mnist_test.npz"


def opened(file, network, normalization, data, n):
    examples = load_examples(str(Path(FOLDER) / data), n=n)
    path = Path(FOLDER) / "checkpoints" / file
    model = load(path, arch=f"{NETWORKS}:{network}", normalize=normalization, device="cpu")
    return model, examples.x, examples.y


def attacked(model, x, y, threat):
    """Which examples stand, and the smallest margins that were found."""
    results = [pgd(model, x, y, threat, steps=40, restarts=2, loss=loss)
               for loss in ("ce", "margin")]  # fmt: skip
    points = [x, *(p for result in results for p in (result.x, result.broken_x))]
    results.append(fast(model, x, y, threat))
    stands = torch.stack([result.robust for result in results]).all(0)
    with torch.no_grad():
        margins = [margin(model(p).double(), y) for p in (*points, results[-1].x)]
    return stands, torch.stack(margins).amin(0)


def margin(logits, y):
    own = logits.gather(1, y[:, None])
    return (own - logits.scatter(1, y[:, None], -torch.inf)).amin(1)


class Crown:
    """Plain CROWN with sparse matrices in float64, for a chain of affine maps and ReLUs.

    With ``rounding``, each layer's values are disturbed by what float32 sums can err at most:
    ``n u / (1 - n u)`` of the sum of the absolute values of ``n`` terms.
    """

    def __init__(self, weights, shifts):
        self.weights, self.shifts = weights, shifts

    def margin(self, low, high, label, rounding):
        self.low, self.high, self.sides, self.errors = low, high, [], []
        for k, weight in enumerate(self.weights):
            ends = [np.maximum(side, 0) for side in self.sides[-1]] if k else (low, high)
            share = (weight.getnnz(1) + 1) * 2.0**-24 * rounding
            size = abs(weight) @ np.abs(ends).max(0) + abs(self.shifts[k])
            self.errors.append(share / (1 - share) * size)
            middle = weight @ ((ends[0] + ends[1]) / 2) + self.shifts[k]
            radius = abs(weight) @ ((ends[1] - ends[0]) / 2) + self.errors[k]
            below, above = middle - radius, middle + radius
            if k == len(self.weights) - 1:
                break
            unsure = np.nonzero((below < 0) & (above > 0))[0]
            if k > 0 and len(unsure):
                rows = sparse.identity(len(middle), format="csr")[unsure]
                below[unsure] = np.maximum(below[unsure], self.lowest(rows, k))
                above[unsure] = np.minimum(above[unsure], -self.lowest(-rows, k))
            self.sides.append((below, above))
        others = [j for j in range(len(self.shifts[-1])) if j != label]
        forms = np.eye(len(self.shifts[-1]))
        forms = sparse.csr_matrix((forms[label] - forms)[others])
        return self.lowest(forms, len(self.weights) - 1).min()

    def lowest(self, a, k):
        """Lower bounds of forms ``a`` of what layer ``k`` computes."""
        total, best = 0.0, -np.inf
        for layer in range(k, -1, -1):
            total = total + a @ self.shifts[layer] - abs(a) @ self.errors[layer]
            a = sparse.csr_matrix(a @ self.weights[layer])
            if layer == 0:
                return np.maximum(best, total + smallest(a, self.low, self.high))
            below, above = self.sides[layer - 1]
            outputs = np.maximum(below, 0), np.maximum(above, 0)
            best = np.maximum(best, total + smallest(a, *outputs))
            unsure = (below < 0) & (above > 0)
            chord = np.where(unsure, above / np.where(unsure, above - below, 1), below >= 0)
            under = np.where(unsure, above > -below, below >= 0).astype(float)
            positive, negative = a.maximum(0), a.minimum(0)
            total = total + negative @ np.where(unsure, -chord * below, 0)
            a = (positive.multiply(under) + negative.multiply(chord)).tocsr()
            best = np.maximum(best, total + smallest(a, below, above))
        raise AssertionError


def smallest(a, low, high):
    return a.maximum(0) @ low + a.minimum(0) @ high


def cnn_a_by_matrices(file, mean, deviation):
    """The layers of CNN-A on the pixels, each from its values at unit vectors."""
    state = torch.load(Path(FOLDER) / "checkpoints" / file, weights_only=True)
    w = [value.double() for value in state.values()]
    maps = [(w[0], (3, 32, 32)), (w[2], (16, 16, 16))]
    weights = []
    for kernel, shape in maps:
        units = torch.eye(int(np.prod(shape)), dtype=torch.float64).view(-1, *shape)
        columns = [
            sparse.csr_matrix(conv2d(part, kernel, stride=2, padding=1).flatten(1).numpy())
            for part in units.split(512)
        ]
        weights.append(sparse.vstack(columns).T.tocsr())
    weights += [sparse.csr_matrix(w[4].numpy()), sparse.csr_matrix(w[6].numpy())]
    shifts = [w[1].repeat_interleave(256), w[3].repeat_interleave(64), w[5], w[7]]
    shifts = [shift.numpy() for shift in shifts]
    scale = np.repeat(1 / np.array(deviation), 1024)
    shifts[0] = shifts[0] - weights[0] @ (np.repeat(np.array(mean), 1024) * scale)
    weights[0] = weights[0].multiply(scale).tocsr()
    return Crown(weights, shifts)


def test_crown_on_cnn_a_is_that_of_sparse_matrices_and_below_every_attack():
    file, eps = "sdp_cifar_cnn_a_adv.model", 2 / 255
    model, x, y = opened(file, "cnn_a", "crown", CIFAR, 30)
    found = certify(model, x, y, ThreatModel("linf", eps), method="crown")
    reference = cnn_a_by_matrices(file, (0.485, 0.456, 0.406), (0.225,) * 3)
    radius = eps * (1 + 1e-5) + 1e-6  # what counts as inside the ball
    exact, rounded = np.full((2, 30), -np.inf)
    with torch.no_grad():
        tried = (model(x).argmax(1) == y).numpy()
    for i in np.nonzero(tried)[0]:
        pixels = x[i].double().flatten().numpy()
        low, high = (pixels - radius).clip(0, 1), (pixels + radius).clip(0, 1)
        exact[i] = reference.margin(low, high, int(y[i]), rounding=False)
        rounded[i] = reference.margin(low, high, int(y[i]), rounding=True)
    ours = found.lower.numpy()
    assert (np.isfinite(ours) == tried).all()
    assert (ours <= exact + 1e-9).all()
    assert np.abs(ours[tried] - rounded[tried]).max() < 2e-3
    assert int(found.certified.sum()) == int((exact > 0).sum()) == 10
    below_attacks(found, model, x, y, ThreatModel("linf", eps))


def below_attacks(found, model, x, y, threat):
    stands, margins = attacked(model, x, y, threat)
    assert not (found.certified & ~stands).any()
    assert (found.lower <= margins).all()


@pytest.mark.parametrize(
    ("file", "network", "normalization", "n"),
    [
        ("abc_sigmoid.pth", "conv_sigmoid", "cifar10", 4),
        ("mnbab_resnet_2b2_bn_sadv8.pth", "resnet_2b2", "cifar10-moments", 1),
    ],
)
def test_sigmoids_and_residual_networks_are_below_every_attack(file, network, normalization, n):
    model, x, y = opened(file, network, normalization, CIFAR, n)
    threat = ThreatModel("linf", 1 / 255)
    found = certify(model, x, y, threat, method="crown")
    assert found.certified.any()
    below_attacks(found, model, x, y, threat)


def test_most_images_are_certified_on_a_network_trained_for_certificates():
    # Its authors certify 97 to 98 % at this radius, with branching.
    model, x, y = opened("colt_mnist01.pt", "Colt", "mnist", MNIST, 10)
    threat = ThreatModel("linf", 0.1)
    found = certify(model, x, y, threat, method="alpha")
    assert int(found.certified.sum()) >= 9
    below_attacks(found, model, x, y, threat)


@pytest.mark.parametrize(("norm", "largest"), [("l2", 2.0), ("l1", 16.0)])
def test_certified_radii_are_below_every_attack(norm, largest):
    model, x, y = opened("sdp_mnist_cnn_a_adv.model", "mnist_cnn_a", "none", MNIST, 1)
    radius = float(certified_radii(model, x, y, norm, largest=largest))
    assert 0 < radius < largest
    threat = ThreatModel(norm, radius)
    assert pgd(model, x, y, threat, steps=40, restarts=2, loss="margin").robust.all()
    assert fast(model, x, y, threat).robust.all()


def test_a_large_network_of_standard_training_is_refused_or_certifies_nothing():
    path = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"
    if not path.is_file():
        pytest.skip("this pyautoattack comes without its example")
    examples = load_examples(str(Path(FOLDER) / CIFAR), n=2)
    model = load(path, normalize="none", device="cpu")
    threat = ThreatModel("linf", 8 / 255)
    found = certify(model, examples.x, examples.y, threat, method="crown")
    assert not found.certified.any()
