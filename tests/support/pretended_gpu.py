"""A GPU that is not there: CPU tensors that say ``cuda:0`` and refuse to meet others.

Inside :func:`pretended_gpu` a tensor of the device ``cuda`` is computed with on the CPU, with
autograd and ``torch.func``. An operation that CUDA would refuse is refused: tensors of both places
in one, but for what PyTorch allows (copies, CPU scalars, CPU indices), and a CPU generator that
fills one.

Autograd has no thread for devices that a build of PyTorch lacks, so that C++ is told ``meta``,
which it runs on the caller's thread, and only Python is told ``cuda:0``.
"""

from collections import Counter
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from support.recorders import Again
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from robaudit.engine import captured

GPU, _INSIDE = torch.device("cuda", 0), torch.device("meta")
_aten = torch.ops.aten
# What a CUDA graph cannot record, as the processor would have to wait for its result.
_READS = {
    _aten._local_scalar_dense,
    _aten.nonzero,
    _aten.masked_select,
    _aten.equal,
    _aten._unique2,
}
_COPIES = {_aten.copy_, _aten._to_copy, _aten.copy, _aten._copy_from}
_INDEXED = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_}

# C++ makes these whole before it looks for a mode.
_recording, _counting = [], []
_FROM_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray}


class OnGpu(torch.Tensor):
    """A tensor on the pretended GPU; ``inner`` has its numbers."""

    @staticmethod
    def __new__(cls, real):
        found = torch.Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=_INSIDE,
        )
        found.inner = real
        return found

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = is_meta = property(lambda self: False)

    def __repr__(self):
        return f"OnGpu({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


class _Devices(TorchFunctionMode):
    """Tells C++ its name of the device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.device:
            return function(*args, **kwargs)
        if function is torch.Tensor.tolist and isinstance(args[0], OnGpu):
            _waits("tolist")
            return args[0].inner.tolist()
        if function is torch.Tensor.cuda:
            return args[0].to(_INSIDE)
        if function is torch.Tensor.data.__set__:
            target, value = args
            if isinstance(target, OnGpu) != isinstance(value, OnGpu):
                raise RuntimeError("a tensor's data is set to one on another device")
            if isinstance(target, OnGpu):
                target.inner = value.inner
                return None
        args, kwargs = tree_map(_named_inside, (args, kwargs))
        if function in _FROM_NUMBERS and kwargs.get("device") == _INSIDE:
            return function(*args, **kwargs | {"device": "cpu"}).to(_INSIDE)
        return function(*args, **kwargs)


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _run(function, args, kwargs or {})


def _named_inside(value):
    if isinstance(value, str) and (value == "cuda" or value.startswith("cuda:")):
        return _INSIDE
    return _INSIDE if isinstance(value, torch.device) and value.type == "cuda" else value


def _run(function, args, kwargs):
    given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
    there = [one for one in given if isinstance(one, OnGpu)]
    asked = kwargs.get("device")
    if there:
        _check(function, args, given)
    if (_recording or _counting) and (there or asked == _INSIDE):
        _note_waiting(function, args, given, asked)
    on_gpu = bool(there) if asked is None else asked.type == "meta"
    if function.overloadpacket is _aten.copy_:
        on_gpu = isinstance(args[0], OnGpu)
    if on_gpu and any(isinstance(one, torch.Generator) for one in tree_leaves((args, kwargs))):
        raise RuntimeError(f"{function}: expected a 'cuda' generator but found 'cpu'")
    if asked is not None and asked.type == "meta":
        kwargs = kwargs | {"device": torch.device("cpu")}
    result = function(*tree_map(_real, args), **tree_map(_real, kwargs))
    known = {id(one.inner): one for one in there}  # what was changed in place stays the same object

    def wrapped(value):
        if not isinstance(value, torch.Tensor) or not on_gpu:
            return value
        return known[id(value)] if id(value) in known else OnGpu(value)

    return tree_map(wrapped, result)


def _note_waiting(function, args, given, asked):
    """Refuse, or count, what the processor waits for: a CUDA graph cannot record it."""
    packet = function.overloadpacket
    places = {isinstance(one, OnGpu) for one in given} | ({asked == _INSIDE} if asked else set())
    waits = packet in _READS or (packet in _COPIES and len(places) > 1)
    if packet in _INDEXED:
        waits |= any(one is not None and one.dtype == torch.bool for one in args[1])
    if waits:
        _waits(packet)


def _waits(operation):
    if _recording:
        raise RuntimeError(f"{operation}: operation not permitted when stream is capturing")
    for counts in _counting:
        counts[str(operation)] += 1


@contextmanager
def waiting():
    """Counts, by name, the operations of the pretended GPU that the processor waits for."""
    counts = Counter()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting.remove(counts)


def _real(value):
    return value.inner if isinstance(value, OnGpu) else value


def _check(function, args, given):
    """Refuse what CUDA refuses."""
    packet = function.overloadpacket
    here = [one for one in given if not isinstance(one, OnGpu)]
    if packet in _COPIES or not here:
        return
    if packet in _INDEXED:
        indices = [one for one in tree_leaves(args[1]) if isinstance(one, torch.Tensor)]
        own = isinstance(args[0], OnGpu)
        others = [*args[2:3]] if len(args) > 2 and isinstance(args[2], torch.Tensor) else []
        good = all(isinstance(one, OnGpu) == own or own for one in indices)
        good &= all(isinstance(one, OnGpu) == own or one.dim() == 0 for one in others)
    else:
        good = all(one.dim() == 0 for one in here)
    if not good:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two, cuda:0 and "
            f"cpu, in {function}"
        )


class Replayed(Again):
    """Refuses what CUDA graphs cannot record."""

    def record(self, work):
        _recording.append(True)
        try:
            return super().record(work)
        finally:
            _recording.pop()


def _recorder_for(device):
    return Replayed() if device.type == "cuda" else None


@contextmanager
def pretended_gpu(capability=(8, 0)):
    """``cuda`` works inside, and every tensor is the CPU's again after it."""
    told = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_capability": capability,
        "get_device_name": "pretended",
        "mem_get_info": (1 << 33, 1 << 33),
        "memory_allocated": 0,
        "memory_reserved": 0,
        "max_memory_allocated": 0,
        "reset_peak_memory_stats": None,
        "get_rng_state": None,
        "set_rng_state": None,
        "synchronize": None,
        "empty_cache": None,
    }
    with ExitStack() as stack:
        for name, value in told.items():
            patch = mock.patch.object(torch.cuda, name, lambda *_, value=value, **__: value)
            stack.enter_context(patch)
        stack.enter_context(mock.patch.object(captured, "recorder_for", _recorder_for))
        # A module's ``to`` makes new parameters: those on the GPU cannot change their type.
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, before)
        stack.enter_context(_Devices())
        stack.enter_context(_Operations())
        yield GPU


def on_gpu(module):
    """The module with its parameters and buffers on the pretended GPU."""
    return module.to(GPU)
