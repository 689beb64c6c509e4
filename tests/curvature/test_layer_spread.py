import pytest
import torch
from support.dense import dense_block
from support.networks import piecewise_linear, smooth, warmed
from support.transformers import Attention, shaken

from robaudit.curvature import layer_spreads, layer_traces
from robaudit.curvature.layer_spread import deviation_from_moments
from robaudit.errors import UsageError

torch.manual_seed(4)
NETWORKS = {**piecewise_linear(), **smooth()}


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0, 2])


@pytest.mark.parametrize("name", ["residual", "attention", "tokens"])
def test_mean_and_deviation_against_each_dense_block(name, batch):
    """Both within 4.5 standard errors over 300 probes, for about ten numbers: a false alarm has a
    chance near 1e-4."""
    model = warmed(NETWORKS[name], (2, 6, 6))
    found = layer_spreads(model, *batch, probes=300)
    weights = [name for name, p in model.named_parameters() if p.dim() > 1]
    assert list(found) == [name.removesuffix(".weight") for name in weights]
    for name in weights:
        eigenvalues = torch.linalg.eigvalsh(dense_block(model, *batch, name))
        spread = found[name.removesuffix(".weight")]
        assert spread.dimension == len(eigenvalues)
        # rounding, where a layer's probes have no variance to speak of
        slack = 1e-12 * float(eigenvalues.abs().max())
        off = abs(spread.mean - float(eigenvalues.mean()))
        assert off <= 4.5 * spread.mean_standard_error + slack
        off = abs(spread.deviation - float(eigenvalues.std(correction=0)))
        assert off <= 4.5 * spread.standard_error + slack
        assert spread.standard_error < 0.2 * spread.deviation


def test_the_default_is_what_is_traced(batch):
    """Attention's projections included; each against its dense block as above, 50 probes."""
    model = shaken(Attention(separate=True))
    found = layer_spreads(model, *batch, probes=50)
    assert list(found) == list(layer_traces(model, *batch, estimator="gauss-newton").layers)
    eigenvalues = torch.linalg.eigvalsh(dense_block(model, *batch, "attention.v_proj_weight"))
    spread = found["attention.v_proj_weight"]
    assert spread.dimension == len(eigenvalues) == 18
    off = abs(spread.deviation - float(eigenvalues.std(correction=0)))
    assert off <= 4.5 * spread.standard_error


def test_a_layer_alone_is_the_same_as_among_others(batch):
    """Its own block: the others' draws do not enter its products."""
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    alone = layer_spreads(model, *batch, layers=["stem"], probes=4)["stem"]
    among = layer_spreads(model, *batch, layers=["head", "stem"], probes=4)["stem"]
    assert alone.mean == pytest.approx(among.mean, rel=1e-12)
    assert alone.deviation == pytest.approx(among.deviation, rel=1e-12)


def test_the_correction_removes_the_bias_of_the_squared_mean():
    """The mean of many small estimates of the variance is the variance, within 4.5 errors."""
    torch.manual_seed(0)
    draws = 3 + torch.randn(20000, 4, dtype=torch.float64)
    second = torch.full((4,), 9.5, dtype=torch.float64)  # E[lambda^2]: the variance is 0.5
    variances = torch.tensor([9.5 - float(d.mean()) ** 2 + float(d.var()) / 4 for d in draws])
    assert abs(float(variances.mean()) - 0.5) < 4.5 * float(variances.std()) / 20000**0.5
    value, _ = deviation_from_moments(torch.full((4,), 3.0, dtype=torch.float64), second)
    assert value == pytest.approx(0.5**0.5)


def test_one_probe_has_no_error_and_is_refused(batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6))
    with pytest.raises(UsageError, match="two probes"):
        layer_spreads(model, *batch, probes=1)
    with pytest.raises(UsageError, match="no layer 'stemm'"):
        layer_spreads(model, *batch, layers=["stemm"])
