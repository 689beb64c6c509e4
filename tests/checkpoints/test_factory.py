"""--arch with the user's own code."""

import sys

import pytest
import torch
from torch import nn

from robaudit.checkpoints import load
from robaudit.checkpoints.factory import factory, is_code
from robaudit.errors import CheckpointError, UsageError

CODE = """
import helper_beside_it
from dataclasses import dataclass
from torch import nn

@dataclass
class Settings:
    width: int = helper_beside_it.WIDTH

class Net(nn.Linear):
    def __init__(self):
        import helper_used_late
        super().__init__(Settings().width, 2)

def none(): pass
def number(): return 3
def fails(): raise RuntimeError("no GPU\\nsecond line")
def leaves(): raise SystemExit(3)
def needs(argument): return nn.Flatten()
def lazy(): return nn.LazyLinear(3)
def made_of_noise(): return nn.Linear(2, 2)
built = nn.Flatten()
text = "x"
class Outer:
    Inner = nn.Flatten
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "helper_beside_it.py").write_text("WIDTH = 3\n")
    (tmp_path / "helper_used_late.py").write_text("")
    path = tmp_path / "net.py"
    path.write_text(CODE)
    yield path
    for name in ("helper_beside_it", "helper_used_late", "robaudit_arch_net"):
        sys.modules.pop(name, None)


def test_a_class_in_a_file_that_imports_its_neighbours(file):
    before = list(sys.path)
    network = factory(f"{file}:Net")()
    assert isinstance(network, nn.Linear)
    assert network.in_features == 3
    assert sys.path == before


def test_a_module(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert isinstance(factory("net:Net")(), nn.Linear)
    assert isinstance(factory("net:Outer.Inner")(), nn.Flatten)
    assert isinstance(factory("torch.nn:Flatten")(), nn.Flatten)
    sys.modules.pop("net", None)


def test_the_random_state_is_left_alone(file):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    factory(f"{file}:made_of_noise")()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("none", UsageError, "gave a NoneType"),
        ("number", UsageError, "gave a int, not a torch.nn.Module"),
        ("fails", CheckpointError, "failed: RuntimeError: no GPU"),
        ("leaves", CheckpointError, "failed: SystemExit: 3"),
        ("needs", CheckpointError, "missing 1 required positional argument"),
        ("lazy", UsageError, "lazy layers"),
        ("absent", UsageError, "has no 'absent'"),
        ("built", UsageError, "is no function"),
        ("text", UsageError, "is no function"),
    ],
)
def test_errors(file, name, kind, says):
    with pytest.raises(kind) as caught:
        factory(f"{file}:{name}")()
    assert says in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.advice


@pytest.mark.parametrize(
    ("arch", "says"),
    [
        ("absent.py:build", "no such file"),
        ("no_such_module_here:build", "no module"),
        ("torch.no_such_part:build", "no module"),
        ("net.py", "names no factory"),
        ("net.py:", "names no factory"),
        (":build", "names no factory"),
    ],
)
def test_names_that_lead_nowhere(arch, says):
    assert is_code(arch)
    with pytest.raises(UsageError, match=says) as caught:
        factory(arch)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("code", ["1 / 0", "import no_such_module_here", "def f(:", "exit()"])
def test_files_that_fail(tmp_path, code):
    path = tmp_path / "broken.py"
    path.write_text(code)
    with pytest.raises(CheckpointError, match=r"broken\.py failed") as caught:
        factory(f"{path}:build")
    assert caught.value.exit_code == 4
    assert "robaudit_arch_broken" not in sys.modules


def test_names_of_architectures_are_no_code():
    assert not is_code("digits_resnet")


WRAPPED = """
import torch
from torch import nn


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def compiled():
    return torch.compile(net())


def parallel():
    return nn.DataParallel(torch.compile(nn.DataParallel(net())))


def averaged():
    return torch.optim.swa_utils.AveragedModel(net())
"""


@pytest.mark.parametrize("name", ["net", "compiled", "parallel", "averaged"])
def test_a_factorys_wrapper_comes_off(tmp_path, name):
    from torch.func import functional_call  # the network itself, without its wrapper

    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    torch.save(plain.state_dict(), tmp_path / "ckpt.pt")
    (tmp_path / "nets.py").write_text(WRAPPED)
    found = load(tmp_path / "ckpt.pt", arch=f"{tmp_path}/nets.py:{name}", normalize="none")
    assert type(found.network) is nn.Sequential
    x = torch.rand(3, 1, 8, 8)
    expected = functional_call(plain, dict(plain.state_dict()), (x,))
    torch.testing.assert_close(found(x), expected)


def test_in_python_the_function_itself_will_do(tmp_path):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    torch.save(plain.state_dict(), tmp_path / "ckpt.pt")

    def net():
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    found = load(tmp_path / "ckpt.pt", arch=net, normalize="none")
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(found(x), plain(x))
    assert found.origin.architecture == "net"
    with pytest.raises(UsageError, match="not a function"):
        load(tmp_path / "ckpt.pt", arch=plain, normalize="none")
    with pytest.raises(UsageError, match=r"not a torch.nn.Module"):
        load(tmp_path / "ckpt.pt", arch=lambda: 3, normalize="none")
