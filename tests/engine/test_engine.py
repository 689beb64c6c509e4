import pytest
import torch
from torch import nn

from robaudit.attacks import pgd
from robaudit.engine import (
    TILE,
    Runner,
    arithmetic,
    frozen,
    generator,
    normal_rows,
    resolve_device,
    sign_rows,
    uniform_rows,
)
from robaudit.errors import UsageError
from robaudit.types import ThreatModel

CPU = torch.device("cpu")


@pytest.mark.parametrize("n", [1, TILE - 1, TILE, TILE + 1, 3 * TILE + 5])
def test_every_pass_is_a_whole_tile_and_nothing_is_lost(n):
    seen = []

    def forward(x):
        seen.append(len(x))
        return x.flatten(1)[:, :2] * 2

    runner = Runner(forward, CPU)
    x = torch.rand(n, 1, 2, 2)
    assert torch.equal(runner.logits(x), x.flatten(1)[:, :2] * 2)
    # Once, on a few images of its own, whether gradients at the edges of the box can be had.
    runner.gradient(lambda z, y: z.sum(1), x, torch.zeros(n).long())
    runner.forwards = len(x)
    runner.backwards = 0
    del seen[:]
    values, gradient, logits = runner.gradient(lambda z, y: z.sum(1), x, torch.zeros(n).long())
    assert set(seen) == {TILE}
    torch.testing.assert_close(values, logits.sum(1))
    want = torch.zeros(n, 4)
    want[:, :2] = 2
    assert torch.equal(gradient.flatten(1), want)
    assert (runner.forwards, runner.backwards) == (2 * n, n)


def test_memory_that_runs_out_halves_the_batch_and_changes_no_result():
    def forward(x):
        if len(x) > 2 * TILE:
            raise torch.cuda.OutOfMemoryError("too much")
        return x.flatten(1)

    runner = Runner(forward, CPU)
    runner.batch = 8 * TILE  # as on a GPU
    x = torch.rand(10 * TILE, 1, 2, 2)
    assert torch.equal(runner.logits(x), x.flatten(1))
    assert runner.backoffs == [8 * TILE, 4 * TILE]
    assert runner.batch == 2 * TILE


@pytest.mark.parametrize("rows", [uniform_rows, normal_rows, sign_rows])
@pytest.mark.parametrize("shape", [(3, 2), (2, 5, 7), ()])
def test_draws_belong_to_the_example(rows, shape):
    index = torch.tensor([*range(20), 2**40, 2**32 + 3])
    whole = rows(shape, index, 7, "start")
    assert whole.shape == (22, *shape)
    assert whole.dtype == torch.float32
    assert torch.equal(rows(shape, index[5:9], 7, "start"), whole[5:9])
    assert torch.equal(rows(shape, index.flip(0), 7, "start"), whole.flip(0))
    assert torch.equal(torch.cat([rows(shape, one, 7, "start") for one in index.split(3)]), whole)
    restarts = torch.tensor([0, 4])[:, None]
    of_two = rows(shape, index, 7, "start", restarts)
    assert torch.equal(of_two[0], whole)
    assert torch.equal(of_two[1], rows(shape, index, 7, "start", 4))


def test_other_examples_seeds_streams_and_restarts_draw_other_numbers():
    index = torch.arange(20)
    whole = uniform_rows((3, 2), index, 7, "start")
    for other in (
        uniform_rows((3, 2), index + 20, 7, "start"),
        uniform_rows((3, 2), index + 2**32, 7, "start"),
        uniform_rows((3, 2), index, 8, "start"),
        uniform_rows((3, 2), index, 7, "probe"),
        uniform_rows((3, 2), index, 7, "start", restart=1),
    ):
        assert not bool((other == whole).any())
    assert len(torch.unique(whole)) == whole.numel()


def test_generators_do_not_confuse_neighbouring_parts():
    one = torch.rand(4, generator=generator(0, "a", 1, 23))
    other = torch.rand(4, generator=generator(0, "a", 12, 3))
    assert not torch.equal(one, other)


def test_frozen_restores_modes_and_gradients_also_after_an_error():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2)).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)

    def interrupted():
        with frozen(model):
            assert not any(module.training for module in model.modules())
            assert not any(parameter.requires_grad for parameter in model.parameters())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]


def test_devices():
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto") == CPU  # tests that are not for a GPU see none
    with pytest.raises(UsageError, match="unknown device 'gpu'"):
        resolve_device("gpu")


def test_cuda_where_there_is_none():
    with pytest.raises(UsageError, match="sees no CUDA device"):
        resolve_device("cuda")


def test_full_precision_holds_inside_and_gives_back_what_was_set():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("medium")
    try:
        with arithmetic("fp32"):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            assert torch.backends.cudnn.deterministic
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32 == before[1]
    finally:
        torch.set_float32_matmul_precision(before[0])


def test_whoever_freezes_a_network_runs_it_in_full_float32():
    """The attack called on its own, without an audit around it."""
    seen = []

    class Watching(nn.Sequential):
        def forward(self, x):
            seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            return super().forward(x)

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        network = Watching(nn.Flatten(), nn.Linear(4, 2))
        pgd(
            network,
            torch.rand(3, 1, 2, 2),
            torch.zeros(3).long(),
            ThreatModel("linf", 0.1),
            steps=2,
        )
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {("highest", False)}
