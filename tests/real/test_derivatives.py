"""Published checkpoints have right derivatives: nothing is found where nothing is."""

import os
from pathlib import Path

import pytest

from robaudit import load, load_examples
from robaudit.attacks.gradient_check import check_gradients
from robaudit.curvature.derivatives import check_derivatives
from robaudit.engine import edge_nudge, frozen
from robaudit.types import ThreatModel

REAL = Path(os.environ.get("ROBAUDIT_REAL_DATA", "nowhere")).expanduser().absolute()
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="ROBAUDIT_REAL_DATA is not set")
NETWORKS = Path(__file__).parents[1] / "support" / "published_networks.py"
CNN_A = "0.485,0.456,0.406;0.225,0.225,0.225"


@pytest.mark.parametrize(
    ("file", "network", "normalization", "data", "eps"),
    [
        ("sdp_cifar_cnn_a_adv.model", "cnn_a", CNN_A, "cifar10_test_first1017.npz", 2 / 255),
        ("sdp_cifar_cnn_a_mix.model", "cnn_a", CNN_A, "cifar10_test_first1017.npz", 2 / 255),
        ("trades_mnist_smallcnn.pt", "trades_small_cnn", "none", "mnist_test.npz", 0.3),
    ],
)
def test_published_networks_pass(file, network, normalization, data, eps):
    arch = f"{NETWORKS}:{network}"
    model = load(REAL / "checkpoints" / file, arch=arch, normalize=normalization, device="cpu")
    x = load_examples(str(REAL / data), n=16).x
    for threat in (ThreatModel("linf", eps), ThreatModel("l2", 0.5)):
        assert check_gradients(model, x, threat).problems == ()
    with frozen(model):
        check_derivatives(model, x, "hessian")
        assert edge_nudge(model, x) == 0
