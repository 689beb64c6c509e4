"""TorchScript and torch.export: the weights torch's own loaders give, without running anything."""

import io
import zipfile

import pytest
import torch
from torch import nn

from robaudit.checkpoints import read_container, read_state_dict
from robaudit.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated; its files are about


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 2)])
        self.register_buffer("kept", torch.rand(2))
        self.register_buffer("hidden", torch.rand(2), persistent=False)
        self.register_buffer("empty", None)
        self.constant = torch.rand(2)
        self.tied = self.layers[0]

    def forward(self, x: torch.Tensor):
        x = self.bn(self.conv(x)).mean((2, 3))
        for layer in self.layers:
            x = layer(x)
        return self.tied(x @ torch.ones(2, 4)) + (self.kept + self.hidden + self.constant)[0]


IMAGES = torch.ones(2, 3, 8, 8)
NETWORKS = {
    "own": Net,
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU(), nn.Linear(4, 2)),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]().eval()


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_torchscript(network, how, tmp_path):
    program = torch.jit.script(network) if how == "script" else torch.jit.trace(network, IMAGES)
    path = tmp_path / "net.pt"
    program.save(path)
    weights = read_state_dict(path)
    same(weights.state_dict, torch.jit.load(path).state_dict())
    assert weights.format == "torchscript"
    assert any("not run" in remark for remark in weights.remarks)


def test_torchscript_whose_weights_are_in_the_program(tmp_path):
    path = tmp_path / "frozen.pt"
    torch.jit.freeze(torch.jit.script(Net().eval())).save(path)
    with pytest.raises(CheckpointError, match="holds no state dict") as caught:
        read_state_dict(path)
    assert "state_dict()" in caught.value.advice


def test_quantised_torchscript_is_refused(tmp_path):
    path = tmp_path / "quantised.pt"
    net = nn.Sequential(nn.Linear(4, 4))
    small = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, torch.qint8)
    torch.jit.script(small).save(path)
    with pytest.raises(CheckpointError, match=r"quantised|attributes"):
        read_state_dict(path)


def rewritten(path, change):
    with zipfile.ZipFile(path) as archive:
        records = [(info, archive.read(info)) for info in archive.infolist()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for info, data in records:
            new = change(info.filename, data)
            if new is not None:
                archive.writestr(info.filename, new, info.compress_type)
    path.write_bytes(buffer.getvalue())


def test_torchscript_without_its_text_keeps_all_tensors_and_says_so(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.script(Net().eval()).save(path)
    rewritten(path, lambda name, data: None if "/code/" in name else data)
    weights = read_state_dict(path)
    assert "constant" in weights.state_dict
    assert any("not written in the program" in remark for remark in weights.remarks)


def test_text_of_a_program_that_unpacks_to_more_than_it_may(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.script(nn.Linear(2, 2)).save(path)
    rewritten(path, lambda name, data: b" " * (17 << 20) if name.endswith(".py") else data)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CheckpointError, match="damaged"):
        read_state_dict(path)


def exported(network, path):
    program = torch.export.export(network, (IMAGES,))
    torch.export.save(program, path)
    return program


def test_an_exported_program(network, tmp_path):
    path = tmp_path / "net.pt2"
    exported(network, path)
    weights = read_state_dict(path)
    same(weights.state_dict, torch.export.load(path).state_dict)
    same(weights.state_dict, network.state_dict())
    assert weights.format == "torch-export"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_of_exported_programs(tmp_path, dtype):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).to(dtype)
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(network, (IMAGES.to(dtype),)), path)
    same(read_state_dict(path).state_dict, network.state_dict())


def older(network, path, inside):
    """The two older layouts, which keep the weights as a file of torch.save in the archive."""
    state = io.BytesIO()
    torch.save(network.state_dict(), state)
    with zipfile.ZipFile(path, "w") as archive:
        if inside == "2.7":
            archive.writestr("serialized_exported_program.json", b"{}")
            archive.writestr("serialized_state_dict.pt", state.getvalue())
            archive.writestr("version", b"8.1")
        else:
            archive.writestr("net/archive_format", b"pt2")
            archive.writestr("net/data/weights/model.pt", state.getvalue())
            archive.writestr("net/models/model.json", b"{}")


@pytest.mark.parametrize("inside", ["2.7", "2.8"])
def test_older_exported_programs(tmp_path, inside):
    path = tmp_path / "net.pt2"
    older(Net(), path, inside)
    assert len(read_container(path).tensors) == len(Net().state_dict())
    loaded = read_state_dict(path)
    network = Net()
    network.load_state_dict(loaded.state_dict)
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".pt"))
        expected = torch.load(io.BytesIO(archive.read(name)), weights_only=True)
    same(loaded.state_dict, expected)


def test_damage_in_the_weights_of_an_exported_program_is_noticed(tmp_path):
    path = tmp_path / "net.pt2"
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    exported(network, path)
    data = path.read_bytes()
    raw = network[1].weight.detach().numpy().tobytes()
    place = data.index(raw)
    path.write_bytes(data[: place + 5] + b"\xff" + data[place + 6 :])
    with pytest.raises(CheckpointError, match="checksum"):
        read_state_dict(path)


@pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 9),
    reason="torch 2.8 and older write the weights as one file, without a list",
)
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b'"as_int": 192', b'"as_int": 999'),
        lambda data: data.replace(b'"dtype": 7', b'"dtype": 99'),
        lambda data: data.replace(b'"weight_0"', b'"../../x"'),
        lambda data: data.replace(b'"layout": 7', b'"layout": 1'),
        lambda data: b"[" * 100_000,
        lambda data: b"{}",
        lambda data: data.replace(b'"use_pickle": false', b'"use_pickle": true'),
    ],
)
def test_a_spoiled_list_of_exported_weights(tmp_path, change):
    path = tmp_path / "net.pt2"
    exported(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), path)
    rewritten(path, lambda n, d: change(d) if n.endswith("weights_config.json") else d)
    with pytest.raises(CheckpointError):
        read_state_dict(path)
