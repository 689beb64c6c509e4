"""A network's passes as CUDA graphs of a few sizes: launched at once instead of kernel by kernel.

A pass is two functions: images to logits, and a gradient of the logits to the gradient in the
images. What lies between them, an objective of an attack, runs as usual. On a CPU, and for a
network that cannot be recorded, both are plain calls.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robaudit.engine.acceleration import difference
from robaudit.engine.edges import mixture_of
from robaudit.engine.logits import Forward, Pull, logits_of, with_pull
from robaudit.engine.precision import Precision
from robaudit.engine.raised import recurs
from robaudit.engine.voting import Voted
from robaudit.errors import error_line

# A pass of 64 images is recorded when it is asked for the fifth time, a larger one the later, but
# for what is compiled: recording takes as long as about six passes and saves the launches, which
# take as long whatever the size. On an H100 these are three fifths of a ResNet-18's pass of 64
# images in bfloat16, a fifth of one of 256 and a hundredth of one of 1024.
_ASKED, _PER = 5, 64
_WARM = 3
# Smaller passes are not compiled: each size is compiled by itself, for tens of seconds.
_COMPILED = 256
# Hooks of these modules compute from their arguments alone and may be recorded.
_PURE_HOOKS = ("robaudit.engine.logits", "robaudit.engine.acceleration")
# PyTorch records one graph at a time in a process.
_RECORDING = threading.Lock()


class Recorder(Protocol):
    """Records work on tensors that stay where they are."""

    def warm(self, work: Callable[[], object]) -> None:
        """Run the work as it will be recorded, so that nothing is set up while recording."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        """What the work gives, and a function that computes it again in the same memory."""


class CudaGraphs:
    """Records CUDA graphs, which share the memory of what is not kept between passes.

    That is safe as one pass ends before the next begins: a graph reads nothing that others wrote,
    except that of a backward pass, which follows its forward pass.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._pool = torch.cuda.graph_pool_handle()

    def warm(self, work: Callable[[], object]) -> None:
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM):
                    work()
            torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            recording = torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            )
            try:
                # After an error the recording leaves its own stream the current one.
                with torch.cuda.stream(torch.cuda.current_stream()), recording:
                    out = work()
            except BaseException:
                # Nor does it tell the allocator, which could free no memory from there on.
                with suppress(AttributeError, RuntimeError):
                    torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)
                raise
        return out, graph.replay


def recorder_for(device: torch.device) -> Recorder | None:
    """CUDA graphs on a GPU; ``None`` elsewhere."""
    return CudaGraphs(device) if device.type == "cuda" else None


class Captured:
    """A network's logits and input gradients, recorded where that is possible.

    Recorded passes are compared with plain ones before they are used, and dropped when the
    network's tensors are other ones. Only modules are recorded: what a function refers to may
    change from call to call.

    Args:
        forward: images ``(b, c, h, w)`` to logits ``(b, k)``.
        precision: what it is run in; the caller sets it.
        compiled: compile large passes first.
        door: what passes the images to the network, and checks its logits.

    Attributes:
        notes: why nothing is recorded or compiled, though it was tried.
    """

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        precision: Precision = "fp32",
        *,
        compiled: bool = False,
        door: Callable[[Forward, Tensor], Tensor] = logits_of,
    ) -> None:
        self.forward, self.precision = forward, precision
        self._passing = forward
        self.notes: list[str] = []
        self._door, self._compile = door, compiled
        self._modules: list[nn.Module] = []
        self._recorder: Recorder | None = None
        if isinstance(forward, nn.Module) and not isinstance(forward, Voted):
            self._modules = list(forward.modules())
            self._recorder = recorder_for(device)
        self._asked: Counter[Any] = Counter()
        self._recorded: dict[Any, tuple[Forward, Pull | None]] = {}
        self._seen: list[object] = []

    @property
    def records(self) -> bool:
        """Whether passes of sizes that are asked for again are recorded."""
        return self._recorder is not None

    def beside(self, forward: Forward, device: torch.device) -> Captured:
        """The same for a copy of the network on another device."""
        return Captured(forward, device, self.precision, compiled=self._compile, door=self._door)

    def logits(self, x: Tensor) -> Tensor:
        """Logits ``(b, k)`` without their graph."""
        recorded = self._find(x, backward=False)
        return self.plain(x) if recorded is None else recorded[0](x)

    def plain(self, x: Tensor) -> Tensor:
        """As :meth:`logits`, never recorded by itself: a part of :meth:`repeated` work."""
        with torch.no_grad():
            return self._door(self._passing, x)

    def repeated(
        self, work: Callable[[], Tensor], x: Tensor, reset: Callable[[], object]
    ) -> Callable[[], object]:
        """A function that does what ``work`` does, recorded where that is possible.

        Args:
            work: passes images through :meth:`plain` and gives the logits. It reads and changes
                tensors that stay where they are, and no value of them is read by the host.
            x: images of the shape that it passes.
            reset: gives those tensors the values that they had; called last of all.
        """
        recorder, again = self._recorder, cast(Callable[[], object], work)
        if recorder is None:
            return work

        def compared(forward: Forward) -> str:
            nonlocal again
            try:
                self._passing = forward
                with _RECORDING:
                    recorder.warm(work)
                    logits, again = recorder.record(work)
                self._passing = self.forward
                reset()
                own = work().clone()
                reset()
                again()
                return difference((own, None), (logits, None), self.precision)
            finally:
                self._passing = self.forward
                reset()

        problem = self._refusal(x) or self._first_that_agrees(compared, len(x))
        return work if self._given_up(problem) else again

    def pair(self, x: Tensor) -> tuple[Tensor, Pull | None]:
        """Logits ``(b, k)``, and the function from their gradient to that in the images.

        The function is ``None`` where the logits do not depend on the images. It is valid until the
        next pass, and once.
        """
        recorded = self._find(x, backward=True)
        if recorded is None:
            return with_pull(lambda images: self._door(self.forward, images), x)
        run, pull = recorded
        return run(x), pull

    def drop(self) -> None:
        """Free the memory of recorded passes."""
        self._recorded.clear()
        self._asked.clear()

    def _find(self, x: Tensor, backward: bool) -> tuple[Forward, Pull | None] | None:
        if self._recorder is None:
            return None
        state = self._state()
        if state != self._seen:
            self.drop()
            self._seen = state
        key = backward, x.shape, x.dtype
        if key not in self._recorded:
            self._asked[key] += 1
            times = _ASKED if self._compile else _ASKED * max(1, len(x) // _PER)
            if self._asked[key] < times or self._given_up(
                self._refusal(x) or self._record(x, backward)
            ):
                return None
        return self._recorded[key]

    def _given_up(self, problem: str) -> bool:
        """Whether there is a problem; nothing is recorded from then on."""
        if problem:
            self.drop()
            self._recorder = None
            self.notes.append(f"passes are not recorded as CUDA graphs: {problem}")
        return bool(problem)

    def _refusal(self, x: Tensor) -> str:
        """Why the network cannot be recorded; empty if nothing is known against it."""
        if any(_foreign_hooks(module) for module in self._modules):
            return "the network has hooks"
        seen = _Unrecordable(x.device)
        with seen, torch.no_grad():
            self._door(self.forward, x)
        return seen.why

    def _first_that_agrees(self, compared: Callable[[Forward], str], size: int) -> str:
        """Record the compiled network where that pays, else the network; why not, if neither is."""
        if self._compile and size >= _COMPILED:
            compiled: Forward = torch.compile(self.forward, dynamic=False, fullgraph=True)
            problem = _problem(lambda: compared(compiled))
            if not problem:
                return ""
            self._compile = False
            self.notes.append(f"the network is not compiled: {problem}")
        return _problem(lambda: compared(self.forward))

    def _record(self, x: Tensor, backward: bool) -> str:
        """Record a size; why not, if it cannot be."""
        recorder = self._recorder
        assert recorder is not None

        def compared(forward: Forward) -> str:
            with _RECORDING:
                made = _recorded(recorder, lambda z: self._door(forward, z), x, backward)
            run, pull = made
            own, back = with_pull(lambda z: self._door(self.forward, z), x)
            slopes = mixture_of(own)
            plain = None if pull is None or back is None else back(slopes)
            again = run(x), None if pull is None else pull(slopes)
            problem = difference((own, plain), again, self.precision)
            if not problem:
                self._recorded[backward, x.shape, x.dtype] = made
            return problem

        return self._first_that_agrees(compared, len(x))

    def _state(self) -> list[object]:
        """What a recording depends on beside the images: where tensors are, hooks, modes."""
        found: list[object] = []
        for module in self._modules:
            tensors = (*module._parameters.values(), *module._buffers.values())
            found += [None if tensor is None else tensor.data_ptr() for tensor in tensors]
            hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
            found.append((hooks, module.training))
        return found


def _problem(compared: Callable[[], str]) -> str:
    """What is wrong with a recording: what it raises, or how its replay differs."""
    try:
        problem = compared()
    except BaseException as error:
        if not recurs(error):
            raise
        return f"it raised {error_line(error)}"
    return f"replayed, {problem}" if problem else ""


def _recorded(
    recorder: Recorder, network: Forward, x: Tensor, backward: bool
) -> tuple[Forward, Pull | None]:
    """The two functions on images of one size, the second only if it is wanted."""
    images = x.detach().clone().requires_grad_(backward)
    latest: list[Tensor] = []

    def forth() -> Tensor:
        with torch.set_grad_enabled(backward):
            latest[:] = [network(images)]
        return latest[0]

    def back() -> Tensor:
        return torch.autograd.grad(latest[0], images, slopes)[0]

    def run(z: Tensor) -> Tensor:
        with torch.no_grad():
            images.copy_(z)
            forth_again()
            return logits.detach().clone()

    def pull(given: Tensor) -> Tensor:
        with torch.no_grad():
            slopes.copy_(given)
            back_again()
            return gradient.clone()

    if not backward:
        recorder.warm(forth)
        latest.clear()
        logits, forth_again = recorder.record(forth)
        return run, None
    slopes = torch.zeros_like(forth().detach())
    recorder.warm(lambda: (forth(), back()))
    latest.clear()
    logits, forth_again = recorder.record(forth)
    gradient, back_again = recorder.record(back)
    return run, pull


def _foreign_hooks(module: nn.Module) -> bool:
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    hooks = (*hooks, *module._backward_hooks.values(), *module._backward_pre_hooks.values())
    return any(getattr(hook, "__module__", "") not in _PURE_HOOKS for hook in hooks)


class _Unrecordable(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks for operations that a recording would freeze or that cannot be recorded.

    Attributes:
        why: what the first one is; empty if there is none.
    """

    _TAGS = (
        (torch.Tag.data_dependent_output, "reads values"),
        (torch.Tag.dynamic_output_shape, "makes shapes that depend on values"),
        (torch.Tag.nondeterministic_seeded, "draws at random"),
    )

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.why = ""
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        found = [what for tag, what in self._TAGS if tag in func.tags]
        if func is torch.ops.aten.lift_fresh.default:
            found.append("makes tensors of numbers")  # copied from the CPU
        copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        # Kernels take a number from the CPU; whatever else is there would be copied.
        if any(
            isinstance(leaf, Tensor) and leaf.device != self._device and (copies or leaf.dim() > 0)
            for leaf in tree_leaves((args, kwargs or {}, out))
        ):
            found.append("moves tensors between devices")
        if found and not self.why:
            self.why = f"the network {found[0]} ({func})"
        return out
