"""Recorded passes, driven on a CPU by recorders that run the work again in the same memory."""

import pytest
import torch
from support.recorders import Again
from torch import nn

from robaudit.engine import TILE, Runner, captured
from robaudit.engine.captured import Captured, recorder_for
from robaudit.errors import NotMeasuredError

CPU = torch.device("cpu")


class Wrong(Again):
    """Replays something else."""

    def record(self, work):
        out, replay = super().record(work)

        def wrong():
            replay()
            out.add_(1)

        return out, wrong


class Raising(Again):
    def record(self, work):
        raise RuntimeError("operation not permitted when stream is capturing")


class Full(Again):
    def record(self, work):
        raise torch.cuda.OutOfMemoryError("no memory for a graph")


@pytest.fixture
def recorder(request, monkeypatch):
    made = getattr(request, "param", Again)()
    monkeypatch.setattr(captured, "recorder_for", lambda device: made)
    return made


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)
    ).requires_grad_(False)  # fmt: skip


def margin(logits, y):
    return logits.logsumexp(1) - logits.gather(1, y[:, None])[:, 0]


def batches(n, count=12):
    for seed in range(count):
        draw = torch.Generator().manual_seed(seed)
        yield torch.rand(n, 3, 6, 6, generator=draw), torch.arange(n) % 5


def test_replays_are_the_passes_bit_for_bit(recorder):
    model = network()
    runner, plain = Runner(model, CPU), Runner(lambda x: model(x), CPU)
    assert runner.network.records
    assert not plain.network.records  # what a function refers to may change
    results = []
    for x, y in batches(50):
        found = [runner.logits(x), *runner.gradient(margin, x, y)]
        for own, other in zip(found, [plain.logits(x), *plain.gradient(margin, x, y)], strict=True):
            assert torch.equal(own, other)
        results.append((found, [part.clone() for part in found]))
    assert recorder.recorded == 3  # logits; and logits with their gradient
    assert recorder.warmed == 2
    assert recorder.replayed > 20
    for found, then in results:  # later passes have not overwritten them
        assert all(torch.equal(own, other) for own, other in zip(found, then, strict=True))
    assert (runner.forwards, runner.backwards) == (plain.forwards, plain.backwards)
    assert runner.network.notes == []


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (1, [64]), (64, [64]), (65, [64, 64]), (192, [256]), (191, [64, 64, 64]), (300, [256, 64]),
        (700, [256, 256, 64, 64, 64]), (768, [1024]), (1024, [1024]), (1100, [1024, 64, 64]),
        (2500, [2048, 256, 256]),
    ],
)  # fmt: skip
def test_recorded_passes_have_few_sizes_and_nothing_is_lost(recorder, n, sizes):
    seen = []

    class Doubles(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return 2 * x.flatten(1)

    runner = Runner(Doubles(), CPU)
    runner.batch = 2048
    x = torch.rand(n, 1, 1, 3)
    assert torch.equal(runner.logits(x), 2 * x.flatten(1))
    assert seen == sizes
    assert runner.forwards == n


@pytest.mark.parametrize(
    ("recorder", "said"),
    [
        (Raising, "raised RuntimeError: operation not permitted when stream is capturing"),
        (Wrong, "replayed, its logits differ"),
        (Full, "raised OutOfMemoryError"),
    ],
    indirect=["recorder"],
)
def test_what_cannot_be_recorded_runs_as_usual_and_is_said_once(recorder, said):
    model = network()
    runner, plain = Runner(model, CPU), Runner(lambda x: model(x), CPU)
    for x, y in batches(70):
        assert torch.equal(runner.logits(x), plain.logits(x))
        for own, other in zip(
            runner.gradient(margin, x, y), plain.gradient(margin, x, y), strict=True
        ):
            assert torch.equal(own, other)
    (note,) = runner.network.notes
    assert "passes are not recorded as CUDA graphs: " in note
    assert said in note
    assert not runner.network.records


class Reads(nn.Module):
    def forward(self, x):
        return x.flatten(1) * (1.0 if x.sum().item() > 0 else -1.0)


class Picks(nn.Module):
    def forward(self, x):
        return x.flatten(1).index_select(1, torch.nonzero(torch.ones(3))[:, 0])


class Draws(nn.Module):
    def forward(self, x):
        return x.flatten(1) + 1e-9 * torch.rand_like(x.flatten(1))


class Makes(nn.Module):
    def forward(self, x):
        return x.flatten(1) * torch.tensor([2.0])


def hooked():
    model = network()
    model[1].register_forward_hook(lambda module, inputs, output: None)
    return model


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Reads, "reads values"),
        (Picks, "shapes that depend on values"),
        (Draws, "draws at random"),
        (Makes, "makes tensors of numbers"),
        (hooked, "has hooks"),
    ],
)
def test_what_a_recording_would_freeze_is_found_before(recorder, make, said):
    run = Captured(make().eval(), CPU)
    for x, _ in batches(TILE):
        run.logits(x)
    assert said in run.notes[0]
    assert recorder.recorded == 0


def test_logits_without_a_gradient_are_refused_as_ever(recorder):
    runner = Runner(nn.Flatten(), CPU)
    x, y = next(batches(TILE))
    runner.gradient(margin, x, y)

    class Steps(nn.Module):
        def forward(self, x):
            return x.flatten(1).round().detach()

    runner = Runner(Steps(), CPU)
    for _ in range(8):
        with pytest.raises(NotMeasuredError, match="no gradient in the image"):
            runner.gradient(margin, x, y)


def test_other_tensors_or_hooks_are_noticed(recorder):
    model = network()
    run = Captured(model, CPU)
    x = torch.rand(TILE, 3, 6, 6)

    def settled():
        for _ in range(8):
            found = run.logits(x)
        assert torch.equal(found, model(x))

    settled()
    with torch.no_grad():
        model[3].weight.mul_(2)  # in place: the recording reads the same memory
    settled()
    assert recorder.recorded == 1
    model[3].weight = nn.Parameter(model[3].weight.detach() * 3, requires_grad=False)
    settled()
    model[0].weight.data = model[0].weight.data.clone() / 2
    settled()
    assert recorder.recorded == 3
    calls = []
    model[1].register_forward_hook(lambda module, inputs, output: calls.append(1))
    settled()
    assert len(calls) > 8
    assert "has hooks" in run.notes[0]


def test_gradients_just_inside_the_box_are_recorded_too(recorder):
    """A network that clamps its input: values at the edge, the gradient of the point inside."""

    class Clamps(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x.clamp(1e-7, 1 - 1e-7))

    model = Clamps()
    runner, plain = Runner(model, CPU), Runner(lambda x: model(x), CPU)
    x, y = torch.rand(70, 3, 6, 6).round(), torch.arange(70) % 5
    for _ in range(8):
        found, want = runner.gradient(margin, x, y), plain.gradient(margin, x, y)
    assert all(torch.equal(own, other) for own, other in zip(found, want, strict=True))
    assert found[1].any()
    assert recorder.recorded > 0
    assert (runner.forwards, runner.backwards) == (plain.forwards, plain.backwards)


def test_memory_that_runs_out_drops_recordings(recorder):
    model, room = network(), [4 * TILE]

    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            if len(x) > room[0]:
                raise torch.cuda.OutOfMemoryError("too much")
            return self.model(x)

    runner = Runner(Narrow(), CPU)
    runner.batch = 4 * TILE
    x = torch.rand(4 * TILE, 3, 6, 6)
    for _ in range(19):
        runner.logits(x)
    assert recorder.recorded == 0  # four times as large, recorded four times as late
    runner.logits(x)
    assert recorder.recorded == 1
    room[0] = TILE
    torch.testing.assert_close(runner.logits(x), model(x))
    assert runner.backoffs == [4 * TILE, 2 * TILE]


def test_the_arithmetic_is_set_while_recording(recorder):
    seen = set()

    class Looks(nn.Module):
        def forward(self, x):
            seen.add(torch.get_float32_matmul_precision())
            return x.flatten(1)

    for kind, setting in (("tf32", "high"), ("fp32", "highest")):
        seen.clear()
        runner = Runner(Looks(), CPU, precision=kind)
        for x, _ in batches(TILE):
            runner.logits(x)
        assert seen == {setting}


@pytest.mark.parametrize("works", [True, False])
def test_compiling_is_tried_on_large_passes_first(recorder, monkeypatch, works):
    model, compiled = network(), []

    def fake(forward, *, dynamic, fullgraph):
        assert (dynamic, fullgraph) == (False, True)

        def run(x):
            if not works:
                raise RuntimeError("graph break")
            compiled.append(len(x))
            return forward(x)

        return run

    monkeypatch.setattr(torch, "compile", fake)
    run = Captured(model, CPU, compiled=True)
    for n in (TILE, 4 * TILE):
        x = torch.rand(n, 3, 6, 6)
        for _ in range(6):
            found = run.logits(x)
        assert torch.equal(found, model(x))
    assert set(compiled) == ({4 * TILE} if works else set())
    assert len(run.notes) == (0 if works else 1)
    assert run.records
    assert (
        works or "the network is not compiled: it raised RuntimeError: graph break" in run.notes[0]
    )


@pytest.mark.parametrize("works", [True, False])
def test_repeated_work_is_recorded_with_the_compiled_network(recorder, monkeypatch, works):
    """And compared with the network as it is, from the same values of what the work changes."""
    model, compiled = network(), []

    def fake(forward, **_):
        def run(x):
            compiled.append(len(x))
            if not works:
                total.fill_(torch.nan)  # as work that stops halfway
                raise RuntimeError("graph break")
            return forward(x)

        return run

    monkeypatch.setattr(torch, "compile", fake)
    run, x, total = Captured(model, CPU, compiled=True), torch.rand(256, 3, 6, 6), torch.zeros(5)

    def work():
        logits = run.plain(x + total.sum())
        total.add_(logits.mean(0))
        return logits

    for _ in range(3):
        work()
    wanted = total.clone()
    total.zero_()
    again = run.repeated(work, x, total.zero_)
    assert not total.any()
    # Warmed up and recorded; what follows is compared by the network itself.
    assert compiled == [256] * (2 if works else 1)
    for _ in range(3):
        again()
    assert torch.equal(total, wanted)
    assert ["not compiled" in note for note in run.notes] == [True] * (not works)
    assert recorder.replayed == 4


def test_a_cpu_records_nothing():
    assert recorder_for(CPU) is None
    run = Captured(network(), CPU)
    for x, _ in batches(TILE):
        run.pair(x)[1](torch.ones(TILE, 5))
    assert not run.records
    assert run.notes == []
