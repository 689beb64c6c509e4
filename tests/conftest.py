"""What every test may count on: one thread, and no GPU unless the test is marked ``gpu``.

Both are settings of the process and of those that it starts, so they are made here, before torch is
imported. A worker of pytest a core takes the place of threads.
"""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

_VISIBLE, _KEPT = "CUDA_VISIBLE_DEVICES", "_CUDA_VISIBLE_DEVICES_OF_THE_USER"
if _KEPT not in os.environ:  # a worker of pytest's inherits it
    os.environ[_KEPT] = os.environ.get(_VISIBLE, "unset")
os.environ[_VISIBLE] = ""


class _Cuda:
    """Shows or hides the GPU, if there is one.

    The variable alone would do for processes that a test starts. In this one the driver reads it
    once, at the first question: nobody may ask before the first test that is to have an answer.
    """

    def __init__(self):
        import torch

        self._module = torch.cuda
        self._own = {name: getattr(torch.cuda, name) for name in ("is_available", "device_count")}
        self.hide()

    def hide(self):
        os.environ[_VISIBLE] = ""
        self._module.is_available = lambda: False
        self._module.device_count = lambda: 0

    def show(self):
        if os.environ[_KEPT] == "unset":
            del os.environ[_VISIBLE]
        else:
            os.environ[_VISIBLE] = os.environ[_KEPT]
        for name, function in self._own.items():
            setattr(self._module, name, function)


_CUDA = pytest.StashKey[_Cuda]()


def _for_gpu(item):
    return item.get_closest_marker("gpu") is not None


def pytest_sessionstart(session):
    config = session.config
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # this process only hands out tests to its workers
    import torch

    with suppress(ValueError):  # a shell has what it runs in the background ignore interrupts
        signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    config.stash[_CUDA] = _Cuda()


def pytest_xdist_auto_num_workers(config):
    """A worker a core; none for test files that are named, which are sooner done without."""
    named = [Path(str(word).partition("::")[0]) for word in config.args]
    if all(path.is_file() for path in named):
        return 0
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def pytest_collection_modifyitems(items):
    items.sort(key=_for_gpu)  # last: whoever forks does so before CUDA is initialised


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    if not _for_gpu(item):
        return (yield)
    cuda = item.config.stash[_CUDA]
    cuda.show()
    try:
        return (yield)
    finally:
        cuda.hide()


def pytest_runtest_setup(item):
    if _for_gpu(item):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session", autouse=True)
def _float32_unless_asked():
    """``auto`` is float32 on every CPU, whether it multiplies bfloat16 or not."""
    from robaudit.engine import precision

    real = precision.multiplies_bf16
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            precision, "multiplies_bf16", lambda device: device.type == "cuda" and real(device)
        )
        yield


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """What a test registers as a measure is forgotten after it."""
    from robaudit import measures

    monkeypatch.setattr(measures, "_registry", dict(measures._registry))
    monkeypatch.setattr(measures, "_loaded", measures._loaded)
