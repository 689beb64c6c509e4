"""robaudit's vision transformer computes what timm's does, where timm is installed."""

import pytest
import torch

from robaudit.checkpoints.architectures import identify

timm = pytest.importorskip("timm")

FORMS = {
    "pool=token": {},
    "pool=mean": {"global_pool": "avg"},
    "pool=patches": {"global_pool": "avg", "class_token": False},
    "bias=no": {"qkv_bias": False},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("heads", [3, 8])
def test_logits_are_timms(form, heads):
    torch.manual_seed(0)
    theirs = timm.models.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=heads, mlp_ratio=2.5,
        num_classes=7, **FORMS[form],
    )  # fmt: skip
    theirs = theirs.double().eval()
    state = theirs.state_dict()
    for value in state.values():
        value.add_(0.1 * torch.randn_like(value))
    found = identify({k: tuple(v.shape) for k, v in state.items()}, image=(3, 16, 16))
    (one,) = (c for c in found if c.arguments.get("heads") == heads)
    assert (one.architecture, form == "pool=token" or form in one.label) == ("vit", True)
    ours = one.build().double().eval()
    ours.load_state_dict(state)
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)
