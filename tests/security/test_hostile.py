"""Files made to exhaust memory, to crash, or to be read in two ways."""

import io
import pickle
import struct
import zipfile

import pytest
import torch

from robaudit.checkpoints import inspect_file, read_container, read_state_dict
from robaudit.errors import CheckpointError


def zip_of(records, **options) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, data in records:
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture
def parts(save):
    """The records of an honest file."""
    path = save({"w": torch.arange(6.0).reshape(2, 3)}, "honest.pt")
    with zipfile.ZipFile(path) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def refused(path, match):
    for reader in (read_state_dict, read_container, inspect_file):
        with pytest.raises(CheckpointError) as caught:
            reader(path)
        # Without the path, which holds the test's own name.
        assert match in caught.value.message.replace(str(path), "")
        assert caught.value.exit_code == 4


def test_the_rebuilt_file_is_good_before_it_is_spoiled(parts, save):
    loaded = read_state_dict(save(zip_of(parts)))
    assert torch.equal(loaded.state_dict["w"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["data.pkl", "DATA.PKL"])
def test_two_records_of_one_name(parts, save, name):
    """Python's reader and torch's (which ignores case) could each take another one."""
    root = parts[0][0].split("/")[0]
    refused(save(zip_of([*parts, (f"{root}/{name}", b"x")])), "two records")


def test_compressed_records(parts, save):
    refused(save(zip_of(parts, compression=zipfile.ZIP_DEFLATED)), "compressed")


def test_missing_and_short_storages(parts, save):
    cut = [(n, d[:-4] if n.endswith("data/0") else d) for n, d in parts]
    refused(save(zip_of(cut)), "storage '0' are missing")
    refused(save(zip_of([p for p in parts if not p[0].endswith("data/0")])), "missing")


def test_a_changed_weight_is_noticed_by_its_checksum(parts, save):
    path = save(zip_of(parts))
    data = path.read_bytes()
    place = data.index(struct.pack("<3f", 3, 4, 5))
    path.write_bytes(data[:place] + b"\x01" + data[place + 1 :])
    with pytest.raises(CheckpointError, match="checksum"):
        read_state_dict(path)


def test_a_file_saved_without_checksums_is_read(save):
    torch.serialization.set_crc32_options(False)
    try:
        path = save({"w": torch.ones(3)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_state_dict(path).state_dict["w"], torch.ones(3))


def test_a_zip_directory_that_claims_to_be_huge(parts, save):
    data = bytearray(zip_of(parts))
    place = data.rindex(b"PK\x05\x06")
    data[place + 12 : place + 16] = struct.pack("<L", 0x7FFFFFFF)
    refused(save(bytes(data)), "directory")


def test_zero_strides_do_not_allocate(save):
    path = save({"w": torch.zeros(1).expand(1 << 40)})
    with pytest.raises(CheckpointError, match="claim"):
        read_state_dict(path)
    assert inspect_file(path).parameters == 1 << 40


def test_doubling_tuples(save, legacy):
    """2**200 leaves, if anything walked them."""
    body = b"\x80\x02)q\x00" + b"h\x00h\x00\x86q\x00" * 200 + b"."
    refused_quietly(save(legacy(body)))


def test_deep_nesting(save, legacy):
    refused_quietly(save(legacy(b"\x80\x02)" + b"\x85" * 100_000 + b".")))
    refused_quietly(save(legacy(b"\x80\x02" + b"(" * 100_000 + b".")))


def test_a_deep_tuple_as_a_key_is_not_hashed(save, legacy):
    """Hashing it recurses in C and would end the process."""
    body = b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s."
    refused(save(legacy(body)), "nested tuples")
    refused(
        save(legacy(b"\x80\x02c__builtin__\nset\n])" + b"\x85" * 100_000 + b"a\x85R.")), "tuple"
    )


def refused_quietly(path):
    """Refused by one of the two: as damaged, or as holding no weights."""
    with pytest.raises(CheckpointError):
        read_state_dict(path)


@pytest.mark.parametrize("opcode", [b"\x8e", b"\x96", b"\x8d"])
def test_a_literal_that_claims_exabytes(save, legacy, opcode):
    refused(save(legacy(b"\x80\x04" + opcode + struct.pack("<Q", 1 << 60) + b"x.")), "longer")


def test_an_array_that_would_be_allocated(save, legacy):
    body = b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."
    with pytest.raises(CheckpointError, match="no state dict"):
        read_state_dict(save(legacy(body)))


def test_a_legacy_file_that_leaves_a_storage_out(save):
    """torch itself would leave that storage uninitialised."""
    path = save({"w": torch.ones(4)}, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    place = data.rindex(b"\x80\x02]")
    path.write_bytes(data[:place] + pickle.dumps([], 2))
    refused(path, "storages")


def test_a_legacy_file_of_the_other_byte_order(save):
    path = save({"w": torch.ones(4)}, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    start = data.index(b"little_endian")
    place = data.index(b"\x88", start)
    path.write_bytes(data[:place] + b"\x89" + data[place + 1 :])
    refused(path, "big-endian")


def test_a_tensor_beyond_its_storage(save):
    """Strides that reach outside are found without torch too."""
    path = save({"w": torch.ones(2, 3)}, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert data.count(b"K\x02K\x03\x86") == 1
    path.write_bytes(data.replace(b"K\x02K\x03\x86", b"K\x02K\x09\x86"))
    refused(path, "beyond its storage")


def header(text: str | bytes, body: bytes = b"") -> bytes:
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text)) + text + body


GOOD = '{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


@pytest.mark.parametrize(
    "data",
    [
        header(GOOD, bytes(7)),
        header(GOOD, bytes(9)),
        header(GOOD.replace("[0,8]", "[4,12]"), bytes(12)),
        header(GOOD.replace("[0,8]", "[8,0]"), bytes(8)),
        header(GOOD.replace("[2]", "[-2,-1]"), bytes(8)),
        header(GOOD.replace("[2]", "[3]"), bytes(8)),
        header(GOOD.replace("[2]", "[2.0]"), bytes(8)),
        header(GOOD.replace("[2]", "[true,2]"), bytes(8)),
        header(GOOD.replace("[2]", "2"), bytes(8)),
        header(GOOD.replace("F32", "F99"), bytes(8)),
        header(GOOD[:-1] + "," + GOOD[1:], bytes(8)),
        header('{"w":' + "[" * 100_000),
        header('{"w":' + "9" * 10_000 + "}"),
        header('{"__metadata__":{"a":1}}'),
        header('{"__metadata__":[]}'),
        header("[1]"),
        header("{}")[:-1],
        header(b"{\xff}"),
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 5),
    ],
)
def test_bad_safetensors_headers(data, save):
    refused(save(data, "bad.safetensors"), "damaged")


def test_a_header_longer_than_any_honest_one(save):
    refused(save(header("{" + " " * (33 << 20) + "}"), "long.safetensors"), "header has")
