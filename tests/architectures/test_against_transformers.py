"""``hf_vit`` computes what Hugging Face's class does, where a release with these keys is there."""

import pytest
import torch

from robaudit.checkpoints.architectures import identify

transformers = pytest.importorskip("transformers", exc_type=ImportError)


@pytest.mark.parametrize("heads", [3, 8])
def test_logits_are_those_of_transformers(heads):
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=heads, intermediate_size=40,
        image_size=16, patch_size=4, num_labels=5,
    )  # fmt: skip
    theirs = transformers.ViTForImageClassification(config).double().eval()
    state = theirs.state_dict()
    if "vit.encoder.layer.0.output.dense.weight" not in state:
        pytest.skip("this release of transformers names its modules in another way")
    for value in state.values():
        value.add_(0.1 * torch.randn_like(value))
    found = identify({k: tuple(v.shape) for k, v in state.items()}, image=(3, 16, 16))
    (one,) = (c for c in found if c.arguments.get("heads") == heads)
    assert one.architecture == "hf_vit"
    ours = one.build().double().eval()
    ours.load_state_dict(state)
    x = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x).logits, rtol=1e-9, atol=1e-9)
